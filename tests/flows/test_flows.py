"""The flows on a real Prefect server: what they make, what they skip, what a person sees in the UI."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, FlowRunFilter
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort

from distill_data import open_corpus
from distill_data.build_report import BuildPause, BuildReport
from distill_data.cli import main
from distill_data.config import Config
from distill_data.corpus.tagging import roll_back
from distill_data.errors import ConfigError, CorpusError, GateError, ModelError
from distill_data.publish_config import Publish
from distill_data.report.run import one_line
from distill_data.student.result import EvaluationResult
from distill_data.teachers.generation import Budget
from distill_data.trace_store import TraceStore
from flows.build import build_corpus
from flows.compare import compare
from flows.distill import distill
from flows.publish import publish_corpus
from flows.scheduled import scheduled
from flows.train import train_student


def built(build: BuildReport | BuildPause) -> BuildReport:
    """A build that went to its end."""
    assert isinstance(build, BuildReport)
    return build


def run_names() -> list[str]:
    """Names of all flow runs, latest first."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(), sort=FlowRunSort.START_TIME_DESC)
    return [run.name for run in runs]


def artifact(key: str) -> Any:
    """Data of the latest artifact with this key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter.model_validate({"key": {"any_": [key]}}), sort=ArtifactSort.UPDATED_DESC
        )
    assert found, f"no artifact {key}"
    return found[0].data


def test_distill_does_all_that_the_config_asks_for_once(settings: Config) -> None:
    first = distill(settings)
    build, student = built(first.build), first.student
    assert build.corpus == "arithmetic@v1" and build.created
    assert build.generated_traces == 160 and build.reused_traces == 0
    assert build.rows + sum(build.dropped.values()) == 160
    assert build.rows == build.train + build.validation > 0
    assert student is not None and student.created and student.steps == 8
    assert student.last_loss < student.first_loss
    assert isinstance(student.before, EvaluationResult) and isinstance(student.after, EvaluationResult)
    assert student.after.distance < student.before.distance

    corpus = open_corpus(build.corpus, root=settings.root)
    assert all(corpus.traces("train")["passed"])
    assert corpus.traces("train")["trace_id"] == corpus.soft_labels("train")["trace_id"]

    again = distill(settings)
    rebuilt = built(again.build)
    assert not rebuilt.created and rebuilt.corpus == "arithmetic@v1"
    assert rebuilt.generated_traces == 0 and rebuilt.engine_seconds == 0
    assert again.student is not None and not again.student.created
    assert again.student.after == student.after


def test_runs_and_artifacts_are_named_after_corpus_and_version(settings: Config) -> None:
    report = distill(settings)
    student = report.student
    assert student is not None
    names = run_names()
    for name in ("distill arithmetic@v1", "build arithmetic@v1", f"train {student.name}"):
        assert name in names
    assert f'"dropped: failed_verifier", "traces": {built(report.build).dropped["failed_verifier"]}' in artifact(
        "arithmetic-v1-counts"
    )
    assert '{"what": "prompts asked", "traces": 40}' in artifact("arithmetic-v1-counts")
    assert "arithmetic@v1 is new" in artifact("arithmetic-v1-summary")
    assert "**Promoted**: `arithmetic@stable` is this version." in artifact("arithmetic-version")
    assert "held out" in artifact(f"{student.name}-student")
    assert artifact("generation") == 100.0


@pytest.mark.usefixtures("inline_workers")
@pytest.mark.long
def test_rounds_follow_the_training_once_and_are_shown(job: dict[str, Any]) -> None:
    job["rounds"] = {"count": 2, "steps": 2, "learning_rate": 1e-3}
    settings = Config.model_validate(job)
    first = distill(settings)
    assert first.student is not None and first.rounds is not None and first.rounds.paused is None
    corpora = [result.corpus for result in first.rounds.rounds]
    assert corpora == ["arithmetic@v1", "arithmetic-rounds@v1", "arithmetic-rounds@v2"]
    assert Path(first.rounds.path) == Path(job["root"], "students", first.rounds.rounds[-1].student)
    assert "rounds arithmetic@v1" in run_names()
    shown = artifact("arithmetic-v1-rounds")
    assert all(f"{result.held_out.kl:.3f}" in shown for result in first.rounds.rounds)

    again = distill(settings)
    assert again.rounds is not None and again.rounds.generated_traces == 0
    assert again.rounds.rounds == first.rounds.rounds
    assert open_corpus("arithmetic-rounds", job["root"]).version == 2


@pytest.mark.usefixtures("inline_workers")
def test_more_samples_generate_only_the_new_ones(job: dict[str, Any]) -> None:
    del job["student"]
    build_corpus(Config.model_validate(job))
    job["teacher"]["sampling"]["samples"] = 6
    more = built(build_corpus(Config.model_validate(job)))
    assert (more.corpus, more.generated_traces, more.reused_traces) == ("arithmetic@v2", 80, 160)
    job["keep"] = {"passed_only": False}
    kept = built(build_corpus(Config.model_validate(job)))
    assert (kept.corpus, kept.generated_traces, kept.reused_traces) == ("arithmetic@v3", 0, 240)
    assert kept.rows == 240


@pytest.mark.long
def test_a_model_judges_between_generating_and_assembling(job: dict[str, Any]) -> None:
    """The replay teacher writes no verdict: every row says so, and nobody is asked twice."""
    for section in ("keep", "student"):
        del job[section]
    judge = job["teacher"] | {"system_prompt": "You judge.", "sampling": {}, "engine": {}}
    job["judge"] = {"verifier": "llm_judge", "teacher": judge}
    slowly = Config.model_validate(job | {"storage": {"shard_size": 8}})
    paused = build_corpus(slowly, budget=Budget(max_tokens=1))
    assert isinstance(paused, BuildPause) and (paused.model_verdicts, paused.missing_verdicts) == (0, 0)
    build = built(build_corpus(Config.model_validate(job)))
    assert paused.generated_traces + build.generated_traces == 160
    assert 0 < build.model_verdicts <= 160 < build.judge_tokens
    assert build.rows == 160 and build.pass_rate is None
    job["filters"] = {"truncated": False}
    other = built(build_corpus(Config.model_validate(job)))
    assert (other.created, other.generated_traces, other.model_verdicts) == (True, 0, 0)
    stores = [TraceStore(job["root"], folder.name) for folder in Path(job["root"], "traces").iterdir()]
    assert sorted(len(store.index()) for store in stores) == sorted([160, build.model_verdicts])


@pytest.mark.usefixtures("inline_workers")
def test_a_config_without_judge_and_student_ends_with_an_unjudged_corpus(job: dict[str, Any]) -> None:
    for section in ("judge", "keep", "student"):
        del job[section]
    report = distill(Config.model_validate(job))
    build = built(report.build)
    assert report.student is None and build.rows == 160 and build.pass_rate is None
    assert set(open_corpus("arithmetic", root=job["root"]).traces("train")["passed"]) == {None}


@pytest.mark.usefixtures("inline_workers")
def test_a_failed_gate_ends_before_training_and_is_shown(job: dict[str, Any]) -> None:
    job["gates"] = {"min_rows": 1000, "min_pass_rate": 0.01}
    with pytest.raises(GateError, match="arithmetic@v1 is not promoted: min_rows: ") as failed:
        distill(Config.model_validate(job))
    assert failed.value.report.created and failed.value.report.promotion.stable is None
    assert not Path(job["root"], "students").exists()
    shown = artifact("arithmetic-version")
    assert "**Not promoted**; stable is no version." in shown and "- failed gate min_rows: " in shown
    del job["gates"]
    assert distill(Config.model_validate(job)).student is not None


@pytest.mark.usefixtures("inline_workers")
def test_a_promoted_version_is_published_once(job: dict[str, Any], tmp_path: Path) -> None:
    del job["student"]
    job |= {"publish": {"to": (tmp_path / "hub").as_uri()}, "gates": {"min_rows": 1000}}
    with pytest.raises(GateError):
        distill(Config.model_validate(job))
    assert not (tmp_path / "hub").exists()
    del job["gates"]
    report = distill(Config.model_validate(job))
    assert report.published is not None and not report.published.already_there
    assert (tmp_path / "hub" / "v1" / "manifest.json").is_file()
    assert "; published to file://" in one_line(report)
    assert "arithmetic@v1 is published" in artifact("arithmetic-v1-published")
    again = distill(Config.model_validate(job))
    assert again.published is not None and again.published.already_there
    assert "published" not in one_line(again)


@pytest.mark.usefixtures("inline_workers")
@pytest.mark.parametrize("train", [False, True])
def test_a_scheduled_run_trains_only_where_it_is_asked_to(job: dict[str, Any], tmp_path: Path, train: bool) -> None:
    job["schedule"] = {"cron": "0 3 * * *", "train": train}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    scheduled(str(config))
    assert Path(job["root"], "students").exists() == train
    shown = artifact("arithmetic-run")
    assert shown.startswith("# arithmetic@v1\n\nThis version is new.") and "| traces | 160 |" in shown


@pytest.mark.usefixtures("inline_workers")
def test_a_version_that_a_person_rolled_back_is_not_trained_on(job: dict[str, Any]) -> None:
    build_corpus(Config.model_validate(job))
    job["teacher"]["sampling"]["samples"] = 5
    build_corpus(Config.model_validate(job))
    roll_back(job["root"], "arithmetic")
    report = distill(Config.model_validate(job))
    assert built(report.build).corpus == "arithmetic@v2" and report.student is None
    assert "stable was moved to v1 by hand" in artifact("arithmetic-version")


@pytest.mark.usefixtures("inline_workers")
def test_nothing_kept_says_why_and_makes_no_version(job: dict[str, Any]) -> None:
    job["teacher"]["sampling"]["max_tokens"] = 2
    with pytest.raises(CorpusError, match=r"160 truncated .*raise teacher\.sampling\.samples or max_tokens"):
        build_corpus(Config.model_validate(job))
    assert not list(Path(job["root"], "corpora", "arithmetic").glob("v*"))


@pytest.mark.usefixtures("inline_workers")
def test_a_base_model_without_template_is_refused_before_anything_is_generated(
    job: dict[str, Any], tmp_path: Path
) -> None:
    from tests.tiny_model import make_tiny_model

    job["teacher"]["model"] = str(make_tiny_model(tmp_path / "base", chat_template=None))
    with pytest.raises(ModelError, match="prompt_format: text"):
        build_corpus(Config.model_validate(job))
    assert not list(Path(job["root"]).glob("traces/*/part-*"))
    assert not [child for child in psutil.Process().children() if "distill_data.teachers" in " ".join(child.cmdline())]
    job["teacher"]["prompt_format"] = "text"
    assert build_corpus(Config.model_validate(job)).generated_traces == 160


@pytest.mark.usefixtures("inline_workers")
def test_train_alone_uses_the_corpus_that_is_named(settings: Config, job: dict[str, Any]) -> None:
    build_corpus(settings)
    trained = train_student(settings, "arithmetic@v1")
    job["student"]["train"]["steps"] = 9
    other = train_student(Config.model_validate(job), "arithmetic@v1")
    assert other.path != trained.path and other.steps == 9


@pytest.mark.usefixtures("inline_workers")
def test_what_prefect_only_shows_never_ends_a_job(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("no server")

    for name in ("create_progress_artifact", "create_table_artifact", "create_markdown_artifact", "get_client"):
        monkeypatch.setattr(f"flows.reporting.{name}", refuse)
    assert built(build_corpus(settings)).created


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_signal_commits_what_is_finished_and_says_how_to_go_on(
    job: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    job["teacher"] |= {"sampling": {"samples": 200}, "engine": {"max_model_len": 256, "max_num_seqs": 1}}
    job["storage"] = {"flush_rows": 20}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    launch = [sys.executable, "-m", "distill_data.cli", "build", str(config), "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    running = subprocess.Popen(
        launch, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not list(Path(job["root"]).glob("traces/*/part-*.parquet")):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = psutil.Process(running.pid).children(recursive=True)
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # as a terminal does
    else:
        running.send_signal(number)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 1 and json.loads(output)["kind"] == "Interrupted"
    assert errors.endswith("interrupted: what was finished is kept; run the same command to continue\n")
    assert "Traceback" not in errors
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    store = TraceStore(job["root"], next(Path(job["root"], "traces").iterdir()).name)
    assert 0 < len(store.index()) < 8000


def test_the_command_line_prints_one_document_per_command(
    job: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(job), encoding="utf-8")
    monkeypatch.setattr("distill_data.interrupt.leave_on_interrupt", lambda say: None)  # Ctrl-C stays pytest's

    def run(*arguments: str, status: int = 0) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["distill-data", *arguments, "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        assert (left.value.code or 0) == status
        return json.loads(capsys.readouterr().out)

    slowly = ("--set", "storage.shard_size=8", "--set", "teacher.engine.max_num_seqs=1")
    paused = run("run", str(config), "--max-tokens", "1", *slowly, status=3)["build"]
    assert (paused["corpus"], paused["paused"]) == ("arithmetic", "--max-tokens 1 is reached")
    assert 0 < paused["generated_traces"] < 160 == paused["generated_traces"] + paused["missing_traces"]
    gated = run("build", str(config), "--set", "gates.min_rows=1000", status=4)
    assert gated["created"] and gated["promotion"]["failed_gates"][0].startswith("min_rows: ")
    assert (gated["reused_traces"], gated["generated_traces"]) == (paused["generated_traces"], paused["missing_traces"])
    gated = run("run", str(config), "--set", "gates.min_rows=1000", status=4)
    assert not gated["build"]["promotion"]["promoted"] and gated["student"] is None
    built = run("build", str(config))
    assert {
        "corpus", "path", "created", "rows", "dropped", "generated_traces", "generated_tokens", "reused_traces",
        "engine_seconds", "tokens_per_second",
    } <= built.keys()  # fmt: skip
    assert (built["corpus"], built["created"]) == ("arithmetic@v1", False)  # only its gates were in the way
    assert built["promotion"] == {"promoted": True, "stable": 1, "failed_gates": [], "note": None}
    assert gated["build"]["generated_traces"] == 0
    assert run("build", str(config), "--max-tokens", "1")["created"] is False  # nothing is left to pause
    trained = run("train", str(config), "--corpus", "arithmetic@v1", "--set", "student.train.steps=4")
    assert (trained["corpus"], trained["steps"], trained["created"]) == ("arithmetic@v1", 4, True)
    untimed = ("--set", "student.evaluate.speed_seconds=0")
    measured = run("evaluate", str(config), "--set", "student.train.steps=4", *untimed)
    assert measured["student"]["after"] == trained["after"]
    assert [model["name"] for model in measured["models"]] == ["teacher", "student"]
    whole = run("run", str(config), "--set", "student.train.steps=4")
    assert not whole["build"]["created"] and not whole["student"]["created"]


@pytest.mark.usefixtures("inline_workers")
def test_a_version_is_published_and_its_run_says_where(job: dict[str, Any], tmp_path: Path) -> None:
    config = Config.model_validate({key: value for key, value in job.items() if key != "student"})
    version = built(build_corpus(config)).corpus
    report = publish_corpus(config.root, version, Publish(to=f"file://{tmp_path}/out"))
    assert not report.already_there and (tmp_path / "out/v1/manifest.json").is_file()
    assert publish_corpus(config.root, version, Publish(to=f"file://{tmp_path}/out")).already_there
    assert run_names()[0] == f"publish {version}"


def test_a_comparison_of_the_same_is_refused_before_anything_is_built(job: dict[str, Any]) -> None:
    job["student"]["train"]["loss"] = {"objective": "text"}
    with pytest.raises(ConfigError, match="learn from text alone, as the arm text does"):
        compare(Config.model_validate(job), None)
    assert not Path(job["root"]).exists()
