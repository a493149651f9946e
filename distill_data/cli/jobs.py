"""Commands that plan, build and train what a config asks for; every heavy import sits inside its command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from distill_data.cli.options import (
    NO_OVERRIDES,
    AsJson,
    ConfigPath,
    CorpusOption,
    Cron,
    MaxHours,
    MaxTokens,
    Overrides,
    RetryFailed,
    Verbose,
)
from distill_data.cli.output import prepare, show, show_failed_gates
from distill_data.errors import GateError

PAUSED = 3


def run(
    config: ConfigPath,
    set_: Overrides = NO_OVERRIDES,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    retry_failed: RetryFailed = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build the corpus, train the student, evaluate it, play rounds: whatever the config asks for."""
    from distill_data.config_file import load_config

    settings = load_config(config, set_)
    prepare(verbose)
    from distill_data.report.run import RunReport, run_summary
    from distill_data.teachers.generation import Budget

    def show_failed(error: GateError) -> int:
        return show_failed_gates(error, RunReport(error.report, None), as_json, run_summary)

    with _building(settings, verbose, show_failed):
        from flows.distill import distill

        report = distill(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    show(report, as_json, run_summary)
    _exit_if_paused(report.build)
    if report.rounds is not None and report.rounds.paused is not None:
        raise typer.Exit(PAUSED)


def plan(config: ConfigPath, set_: Overrides = NO_OVERRIDES, as_json: AsJson = False) -> None:
    """Show the resolved config, what is missing, and what it will cost; starts no engine."""
    prepare(verbose=False)
    from distill_data.build import plan_build
    from distill_data.config_file import load_config
    from distill_data.report.plan import describe_plan, plan_summary
    from distill_data.screening import prompts_of

    settings = load_config(config, set_)
    described = describe_plan(plan_build(settings, prompts_of(settings)))
    show(described, as_json, plan_summary)


def build(
    config: ConfigPath,
    set_: Overrides = NO_OVERRIDES,
    max_tokens: MaxTokens = None,
    max_hours: MaxHours = None,
    retry_failed: RetryFailed = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Bring the corpus up to date: prompts to a new version, if anything is new."""
    from distill_data.config_file import load_config

    settings = load_config(config, set_)
    prepare(verbose)
    from distill_data.report.build import build_summary
    from distill_data.teachers.generation import Budget

    with _building(settings, verbose, lambda error: show_failed_gates(error, error.report, as_json, build_summary)):
        from flows.build import build_corpus

        report = build_corpus(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    show(report, as_json, build_summary)
    _exit_if_paused(report)


def serve(
    config: ConfigPath,
    cron: Cron = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run the config on its schedule, as a deployment of Prefect, until interrupted."""
    from distill_data.config_file import load_config
    from distill_data.errors import ConfigError

    overrides = [*set_, *([] if cron is None else [f"schedule.cron={json.dumps(cron)}"])]
    settings = load_config(config, overrides)
    schedule = settings.schedule
    if schedule is None:
        raise ConfigError(f"config {config} has no schedule: section: add one, or give --cron '0 3 * * *'")
    prepare(verbose, leave=False)
    from distill_data.report.serve import ServeReport, serve_summary
    from flows.deployments import serve as serve_schedule
    from flows.server import prefect_server

    with prefect_server(Path(settings.root) / "logs") as api:

        def ready(deployment: Any) -> None:
            show(ServeReport.of(settings.name, schedule, str(deployment), api), as_json, serve_summary)
            sys.stdout.flush()

        serve_schedule(settings, schedule, config, overrides, ready)


def train(
    config: ConfigPath,
    corpus: CorpusOption = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train the config's student on a corpus version and measure it on the held-out rows."""
    settings = _with_student(config, set_)
    prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report.student import student_summary
    from distill_data.student.ranks import world_size

    with shown_on_stderr():
        if world_size() > 1:
            report = _train_as_one_of_many(settings, corpus or settings.name)
        else:
            from flows.train import train_student

            report = train_student(settings, corpus or settings.name)
    if report is not None:
        show(report, as_json, student_summary)


def evaluate(
    config: ConfigPath,
    corpus: CorpusOption = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare the trained student with its teacher and baselines: held-out prompts and traces, size, speed."""
    settings = _with_student(config, set_)
    prepare(verbose)
    from distill_data.evaluation.table import evaluation_summary
    from distill_data.progress import shown_on_stderr
    from distill_data.report.student import classifier_summary

    with shown_on_stderr():
        from flows.evaluate import evaluate_classifier, evaluate_student

        if settings.student.task == "classification":
            show(evaluate_classifier(settings, corpus or settings.name), as_json, classifier_summary)
            return
        found = evaluate_student(settings, corpus or settings.name, verbose)
    show(found, as_json, evaluation_summary)


def compare(
    config: ConfigPath,
    corpus: CorpusOption = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train the student with and without the teacher's distributions, and say what they bought."""
    settings = _with_student(config, set_)
    prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report.comparison import comparison_summary

    with shown_on_stderr():
        from flows.compare import compare as run_comparison

        found = run_comparison(settings, corpus, verbose)
    show(found, as_json, comparison_summary)
    _exit_if_paused(found)


def doctor(config: ConfigPath, set_: Overrides = NO_OVERRIDES, as_json: AsJson = False) -> None:
    """Check config, prompts, model, template, student and disk before any engine starts."""
    prepare(verbose=False)
    from distill_data.config_file import load_config
    from distill_data.doctor import examine
    from distill_data.report.plan import checks_summary

    checks = examine(load_config(config, set_))
    show({"ok": all(check.ok for check in checks), "checks": checks}, as_json, lambda _: checks_summary(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@contextmanager
def _building(settings: Any, verbose: bool, show_failed: Callable[[GateError], int]) -> Iterator[None]:
    """Around a build: its progress, and its teacher's session, begun while Prefect is imported.

    Raises:
        typer.Exit: the version failed a gate; the status is what `show_failed` gives.
    """
    from distill_data.progress import shown_on_stderr
    from distill_data.session import early_session

    try:
        with shown_on_stderr(), early_session(settings, verbose):
            yield
    except GateError as error:
        raise typer.Exit(show_failed(error)) from None


def _train_as_one_of_many(settings: Any, reference: str) -> Any:
    """A flow in each of the processes would start a server of Prefect in each."""
    from distill_data.corpus.read import open_corpus
    from distill_data.progress import display
    from distill_data.student.job import plan_student, train_and_measure

    def show_step(now: Any) -> None:
        display().update("train", now.point.step, now.steps, f"loss {now.point.loss:.3f}")

    return train_and_measure(plan_student(settings, open_corpus(reference, settings.root)), show_step)


def _with_student(config: Path, overrides: list[str]) -> Any:
    from distill_data.config_file import load_config
    from distill_data.errors import ConfigError

    settings = load_config(config, overrides)
    if settings.student is None:
        raise ConfigError(f"config {config} has no student: section: add one")
    return settings


def _exit_if_paused(report: Any) -> None:
    from distill_data.build_report import BuildPause

    if isinstance(report, BuildPause):
        raise typer.Exit(PAUSED)
