"""Publishing a student through the hub's real client, and loading it from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.publish import publish_student
from distill_data.student.job import plan_student, train_and_measure
from tests.hub.conftest import Run
from tests.hub.server import File, Hub, Repo
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
for revision in (None, sys.argv[1]):
    model = AutoModelForCausalLM.from_pretrained("org/small", revision=revision)
    tokenizer = AutoTokenizer.from_pretrained("org/small", revision=revision)
print(model.num_parameters(), len(tokenizer), float(model.lm_head.weight.double().sum()))
"""


def train(config: Config, **section: Any) -> Path:
    """The student of a config's latest version, trained."""
    tree = config.model_dump()
    tree["student"]["train"] |= section
    settings = Config.model_validate(tree)
    report = train_and_measure(plan_student(settings, open_corpus(config.name, config.root)), lambda _: None)
    assert report is not None
    return Path(report.path)


@pytest.fixture
def config(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config whose corpus is there and goes to hf://org/sums."""
    settings = make_config(
        tmp_path / "data",
        tiny_model,
        write_prompts(tmp_path / "p.jsonl", 8),
        student={"model": {"from_config": LLAMA}, "train": {"steps": 2, "batch_size": 4}},
        validation={"fraction": 0.2},
        publish={"to": "hf://org/sums"},
    )
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)
    planned = plan(settings)
    generate_missing(planned, lambda _: None)
    assemble_version(planned, lambda _: None)
    return settings


@pytest.fixture
def publish(run: Run, config: Config) -> Run:
    """`distill-data publish` of a student to hf://org/small."""

    def publish(student: str, *options: str, to: str = "hf://org/small"):
        return run("-m", "distill_data.cli", "publish", student, "--to", to, "--root", str(config.root), *options)

    return publish


def test_a_published_student_loads(publish: Run, run: Run, hub: Hub, config: Config, tmp_path: Path) -> None:
    student = train(config)
    done = publish(student.name, "--json")
    assert done.returncode == 0, done.stderr
    repo, report = hub.repos["org/small"], json.loads(done.stdout)
    assert report["delivery"]["revision"] == repo.head == repo.tags[student.name]
    assert report["delivery"]["address"] == f"{hub.url}/org/small/tree/{student.name}"
    tree = repo.commits[repo.head]
    assert tree["model.safetensors"].lfs and not [path for path in tree if path.endswith((".bin", ".pt"))]
    loaded = run("-c", LOAD, student.name)
    assert loaded.returncode == 0, loaded.stderr
    parameters, tokens, total = loaded.stdout.split()
    weights = load_file(student / "model.safetensors")
    assert int(parameters) == sum(values.numel() for values in weights.values()) and int(tokens) > 0
    assert float(total) == pytest.approx(float(weights["lm_head.weight"].double().sum()))


def test_the_card_names_repository_and_dataset_and_no_folder_of_this_machine(
    publish: Run, hub: Hub, config: Config, tmp_path: Path
) -> None:
    student = train(config)
    assert publish(str(student)).returncode == 0  # by its folder
    tree = hub.repos["org/small"].commits[hub.repos["org/small"].head]
    card = tree["README.md"].content.decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["datasets"] == ["org/sums"] and header["library_name"] == "transformers"
    assert f'AutoModelForCausalLM.from_pretrained("org/small", revision="{student.name}")' in card
    assert "datasets/org/sums" in card
    for path, file in tree.items():
        assert str(tmp_path).encode() not in file.content, path
    marker = json.loads(tree["student.json"].content)
    assert (marker["student"], marker["corpus"]) == (student.name, "replayed@v1")
    assert marker["corpus_digest"] == open_corpus("replayed@v1", config.root).manifest.digest


def test_published_again_nothing_is_sent_and_the_next_student_takes_its_place(
    publish: Run, hub: Hub, config: Config
) -> None:
    student = train(config)
    assert publish(student.name).returncode == 0
    sent, commits = hub.uploaded, len(hub.repos["org/small"].commits)
    (student / "evaluation-00000000.json").write_text("{}")  # measured since: the same student
    again = publish(student.name, "--json")
    assert again.returncode == 0 and json.loads(again.stdout)["delivery"]["already_there"]
    assert (hub.uploaded, len(hub.repos["org/small"].commits)) == (sent, commits)
    other = train(config, seed=1)
    assert publish(other.name).returncode == 0
    repo = hub.repos["org/small"]
    assert set(repo.tags) == {student.name, other.name} and repo.tags[other.name] == repo.head
    weights = "model.safetensors"
    assert repo.commits[repo.tags[student.name]][weights].content == (student / weights).read_bytes()
    assert repo.commits[repo.head][weights].content == (other / weights).read_bytes()


def test_what_is_no_student_of_this_corpus_is_left_alone(publish: Run, hub: Hub, config: Config) -> None:
    student = train(config)
    theirs = Repo(private=False)
    theirs.add({"model.safetensors": File(b"theirs", lfs=True)})
    hub.repos["org/small"] = theirs
    refused = publish(student.name)
    assert refused.returncode == 1 and "has a file model.safetensors and no student.json" in refused.stderr
    theirs.add({"student.json": File(b'{"corpus": "poems@v3"}', lfs=False)})
    refused = publish(student.name)
    assert refused.returncode == 1 and "holds a student of the corpus poems@v3" in refused.stderr
    assert len(theirs.commits) == 2 and not theirs.tags


def test_another_student_under_the_same_name_is_refused(publish: Run, hub: Hub, config: Config) -> None:
    student = train(config)
    assert publish(student.name).returncode == 0
    other = train(config, seed=1)
    (student / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    refused = publish(student.name)
    assert refused.returncode == 1 and "a published version never changes" in refused.stderr


def test_a_busy_hub_is_asked_again_and_a_dry_run_asks_nobody(publish: Run, hub: Hub, config: Config) -> None:
    student = train(config)
    shown = publish(student.name, "--dry-run")
    assert shown.returncode == 0 and not hub.requests
    assert "model.safetensors" in shown.stdout and "student.json" in shown.stdout and "datasets:" in shown.stdout
    hub.fail("POST /api/models/org/small/commit", 503)
    hub.fail("POST /api/models/org/small/preupload", 429, Retry_After="0")
    assert publish(student.name).returncode == 0
    assert hub.repos["org/small"].tags[student.name] == hub.repos["org/small"].head


def test_without_a_destination_it_says_so(run: Run, config: Config) -> None:
    student = train(config)
    refused = run("-m", "distill_data.cli", "publish", student.name, "--root", str(config.root))
    assert refused.returncode == 2 and "--to hf://OWNER/NAME" in refused.stderr


def test_a_folder_gets_the_same_files_with_student_json_last(config: Config, tmp_path: Path) -> None:
    student = train(config)
    to = f"file://{tmp_path}/out"
    report = publish_student(config.root, student.name, to)
    there = tmp_path / "out" / student.name
    assert sorted(file.path for file in report.files) == sorted(
        file.relative_to(there).as_posix() for file in there.rglob("*") if file.is_file()
    )
    assert load_file(there / "model.safetensors").keys() == load_file(student / "model.safetensors").keys()
    assert publish_student(config.root, student, to).already_there
