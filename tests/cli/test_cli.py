from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from distill_data import cli, doctor
from distill_data.build import assemble_version, generate_missing
from distill_data.cli.output import prepare
from distill_data.config_file import load_config
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts
from tests.tiny_model import make_tiny_model


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""

    def command(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["distill-data", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Ran(int(ended.value.code or 0), out, err)

    return command


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    settings = make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 5))
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(settings.model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
    return file


@pytest.fixture
def root(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with the corpus replayed@v1."""
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)
    planned = plan(load_config(config))
    generate_missing(planned, lambda _: None)
    assemble_version(planned, lambda *_: None)
    return Path(planned.config.root)


def test_plan_says_what_is_missing_and_starts_nothing(run: Run, config: Path) -> None:
    ran = run("plan", config, "--json", "--set", "teacher.sampling.samples=3")
    assert (ran.status, ran.err) == (0, "")
    document = ran.document
    assert (document["prompts"], document["wanted_traces"], document["finished_traces"]) == (5, 15, 0)
    assert document["estimate"]["traces"] == 15
    assert document["config"]["teacher"]["sampling"]["samples"] == 3
    assert not (config.parent / "root").exists()
    text = run("plan", config)
    assert text.status == 0
    assert "10 wanted, 0 finished, 10 missing" in text.out


def test_doctor_is_content_or_names_what_fails(run: Run, config: Path) -> None:
    ran = run("doctor", config, "--json")
    assert (ran.status, ran.err) == (0, "")
    names = ["prompts", "teacher", "tokenizer", "template", "context", "disk"]
    assert [(check["name"], check["ok"]) for check in ran.document["checks"]] == [(name, True) for name in names]
    failed = run("doctor", config, "--json", "--set", "teacher.engine.max_model_len=3")
    assert failed.status == 1
    assert failed.document["ok"] is False
    (check,) = [check for check in failed.document["checks"] if not check["ok"]]
    assert check["name"] == "context"
    assert "none of the first 5 prompts fits teacher.engine.max_model_len 3" in check["detail"]


def test_corpora_are_listed_shown_and_verified(run: Run, root: Path) -> None:
    assert run("corpus", "list", "--root", root, "--json").document == {"replayed": {"versions": [1], "tags": {}}}
    assert run("corpus", "list", "--root", root).out == "replayed: v1\n"
    for name in ("replayed", "replayed@v1"):
        shown = run("corpus", "show", name, "--root", root, "--json")
        assert (shown.status, shown.document["name"], shown.document["version"]) == (0, "replayed", 1)
    assert "你好" in run("corpus", "show", "replayed", "--root", root).out
    verified = run("corpus", "verify", "replayed", "--root", root, "--json")
    whole = {"corpus": "replayed@v1", "ok": True, "problems": [], "texts_left_out": None}
    assert (verified.status, verified.document) == (0, whole)


def test_tags_are_set_rolled_back_and_removed(run: Run, root: Path) -> None:
    at = ("--root", root)
    assert run("corpus", "tag", "replayed@v1", "best", *at).out == "replayed@best is v1\n"
    assert run("corpus", "tag", "replayed", "stable", *at, "--json").document == {
        "corpus": "replayed", "tag": "stable", "version": 1, "before": None}  # fmt: skip
    assert run("corpus", "list", *at).out == "replayed: v1 (best, stable)\n"
    assert run("corpus", "list", *at, "--json").document == {
        "replayed": {"versions": [1], "tags": {"best": 1, "stable": 1}}
    }
    for command in ("show", "verify"):
        assert run("corpus", command, "replayed@best", *at).status == 0
    exported = run("corpus", "export", "replayed@best", "--format", "jsonl", "--out", root / "out", *at, "--json")
    assert (exported.status, exported.document["corpus"]) == (0, "replayed@v1")
    assert run("report", "replayed@stable", *at, "--out", root / "r.html").status == 0
    assert (
        run("corpus", "tag", "replayed", "best", "--remove", *at).out == "replayed@best is removed; before, it was v1\n"
    )
    assert run("corpus", "rollback", "replayed", "best", *at).out == "replayed@best is v1\n"
    nowhere = run("corpus", "rollback", "replayed", *at)
    assert (nowhere.status, nowhere.err.count("\n")) == (1, 1)
    assert nowhere.err.startswith("error: tag 'stable' of replayed named no other version before: set it with")
    assert run("corpus", "tag", "replayed@v2", "best", *at).status == 1
    assert run("corpus", "tag", "replayed@v1", "v1", *at).status == 2
    assert run("corpus", "show", "replayed@nope", *at).err.endswith(
        "use one of replayed@best, replayed@stable, replayed@v1\n"
    )


def test_a_damaged_corpus_fails(run: Run, root: Path) -> None:
    file = next((root / "corpora/replayed/v1/traces").glob("train-*"))
    file.write_bytes(file.read_bytes()[:-1])
    ran = run("corpus", "verify", "replayed@v1", "--root", root, "--json")
    assert ran.status == 1
    assert file.name in ran.document["problems"][0]


def test_the_root_may_come_from_the_environment(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_DATA_ROOT", str(root))
    assert list(run("corpus", "list", "--json").document) == ["replayed"]


def test_no_corpora(run: Run, tmp_path: Path) -> None:
    assert run("corpus", "list", "--root", tmp_path, "--json").document == {}
    ran = run("corpus", "show", "nothing@v1", "--root", tmp_path, "--json")
    assert ran.status == 1
    assert ran.document["kind"] == "CorpusError"
    assert ran.err.startswith("error: corpus 'nothing' does not exist under")


BAD_INPUT = {
    "a column that is not there": (
        ["prompts.0.prompt=qestion"], r"has no column 'qestion': use one of 'question', 'answer'"),
    "a file that is not there": (["prompts.0.path=no.jsonl"], r"'no\.jsonl' does not exist: correct path:"),
    "two sources with one name": (
        ["prompts=[{source: reasoning_gym, task: a, size: 1}, {source: reasoning_gym, task: a, size: 1}]"],
        r"two prompt sources are named 'a': give one of them another name:"),
    "a wrong type": (
        ["teacher.sampling.samples=many"], r"samples is 'many': input should be a valid integer"),
    "an unknown key": (["teacher.modle=x"], r"unknown key teacher\.modle \(did you mean model\?\)"),
    "a model that is not there": (["teacher.model=/no/such"], r"model '/no/such' does not exist: give the path"),
    "a package that is not there": (["teacher.model=gguf+package://nowhere/x.gguf"], r"nowhere"),
    "prompts without text": (["prompts.0.path=EMPTY"], r"all 2 prompts are empty, .*: check the columns that prompt:"),
    "no rows": (["prompts.0.path=NOTHING"], r"has no rows: give another path:"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_input_is_one_line_and_exit_2(run: Run, config: Path, tmp_path: Path, case: str, as_json: bool) -> None:
    (tmp_path / "empty.jsonl").write_text('{"question": " ", "answer": "1"}\n{"question": "", "answer": "1"}\n')
    (tmp_path / "nothing.jsonl").write_text("\n")
    overrides, pattern = BAD_INPUT[case]
    paths = {"EMPTY": str(tmp_path / "empty.jsonl"), "NOTHING": str(tmp_path / "nothing.jsonl")}
    settings = [re.sub("EMPTY|NOTHING", lambda found: paths[found[0]], override) for override in overrides]
    ran = run("plan", config, *(f"--set={setting}" for setting in settings), *(["--json"] if as_json else []))
    assert ran.status == 2
    assert ran.err.startswith("error: ")
    assert ran.err.count("\n") == 1
    assert re.search(pattern, ran.err)
    if as_json:
        assert ran.document["error"] == ran.err.removeprefix("error: ").rstrip("\n")
    else:
        assert ran.out == ""


@pytest.mark.parametrize("command", ["run", "build", "serve", "train", "evaluate", "plan", "doctor"])
def test_a_missing_config_is_told_before_anything_heavy_is_loaded(run: Run, command: str) -> None:
    ran = run(command, "no.yaml", "--json")
    assert ran.status == 2
    assert ran.err == "error: config no.yaml does not exist: give the path of a YAML file\n"
    assert ran.document["kind"] == "ConfigError"


def test_training_without_a_student_is_refused(run: Run, config: Path) -> None:
    for command in ("train", "evaluate"):
        ran = run(command, config)
        assert (ran.status, ran.err) == (2, f"error: config {config} has no student: section: add one\n")


def test_serving_without_a_time_is_refused(run: Run, config: Path) -> None:
    ran = run("serve", config)
    assert (ran.status, ran.err) == (
        2, f"error: config {config} has no schedule: section: add one, or give --cron '0 3 * * *'\n")  # fmt: skip
    ran = run("serve", config, "--cron", "*/5 * * *")
    assert ran.status == 2 and "'*/5 * * *' has 4 fields: give five" in ran.err


@pytest.mark.parametrize("arguments", [["run"], ["nope"], ["plan", "--nope"], ["corpus", "show"]])
def test_wrong_usage_is_one_line_and_exit_2(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments, "--json")
    assert ran.status == 2
    assert re.fullmatch(r"error: (Missing|No such) .*: see `distill-data --help`\n", ran.err)
    assert ran.document["kind"] == "UsageError"


def test_ctrl_c_says_that_what_was_finished_is_kept(run: Run, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distill_data.build.plan_build", interrupted)
    ran = run("plan", config)
    message = "error: interrupted: what was finished is kept; run the same command to continue\n"
    assert (ran.status, ran.err) == (1, message)


def test_a_base_model_without_a_chat_template(run: Run, config: Path, tmp_path: Path) -> None:
    base = make_tiny_model(tmp_path / "base", chat_template=None)
    failed = run("doctor", config, f"--set=teacher.model={base}")
    assert failed.status == 1
    assert re.search(r"FAIL template .* has no chat template \(a base model\): set teacher\.prompt_format", failed.out)
    text = run("doctor", config, f"--set=teacher.model={base}", "--set=teacher.prompt_format=text")
    assert text.status == 0
    assert "prompts are fed as plain text" in text.out


def test_a_full_disk_is_found_before_an_engine_starts(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(doctor.InputError, match=r"has 0\.0 GB free and this build needs about 0\.5 GB: free space"):
        doctor.require_ready(plan(load_config(config)))


def test_a_root_that_is_a_file_is_found_before_an_engine_starts(config: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = load_config(config, [f"root={tmp_path / 'file'}"])
    with pytest.raises(doctor.InputError, match="file is no folder that can be written: set root: to another one"):
        doctor.check_disk(plan(settings))


HEAVY = [
    "torch",
    "transformers",
    "datasets",
    "pyarrow",
    "prefect",
    "vllm",
    "reasoning_gym",
    "huggingface_hub",
    "pandas",
]


@pytest.mark.parametrize("statement", ["import distill_data", "from distill_data import cli; cli.app(['--help'])"])
def test_nothing_heavy_is_loaded_to_start(statement: str) -> None:
    script = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "distill_data" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize(("verbose", "level", "console"), [(True, "INFO", None), (False, None, "CRITICAL")])
def test_verbose_lets_libraries_speak(
    monkeypatch: pytest.MonkeyPatch, verbose: bool, level: str | None, console: str | None
) -> None:
    for name in ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("distill_data.interrupt.leave_on_interrupt", lambda say: None)
    prepare(verbose)
    assert os.environ.get("PREFECT_LOGGING_LEVEL") == level
    assert os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL") == console
