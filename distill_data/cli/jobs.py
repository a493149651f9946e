"""Commands that plan, build and train what a config asks for; every heavy import sits inside its command."""

from __future__ import annotations

import json
import sys
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
    """Build the corpus, train the student, evaluate it: whatever the config asks for."""
    from distill_data.config_file import load_config

    settings = load_config(config, set_)
    prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report import RunReport, run_summary
    from distill_data.session import early_session
    from distill_data.teachers.generation import Budget

    try:
        with shown_on_stderr(), early_session(settings, verbose):
            from flows.distill import distill

            report = distill(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    except GateError as failed:
        report = RunReport(failed.report, None)
        raise typer.Exit(show_failed_gates(failed, report, as_json, run_summary)) from None
    show(report, as_json, run_summary)
    _exit_if_paused(report.build)


def plan(config: ConfigPath, set_: Overrides = NO_OVERRIDES, as_json: AsJson = False) -> None:
    """Show the resolved config, what is missing, and what it will cost; starts no engine."""
    prepare(verbose=False)
    from distill_data.build import plan_build
    from distill_data.config_file import load_config
    from distill_data.report import describe_plan, plan_summary
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
    from distill_data.progress import shown_on_stderr
    from distill_data.report import build_summary
    from distill_data.session import early_session
    from distill_data.teachers.generation import Budget

    try:
        with shown_on_stderr(), early_session(settings, verbose):
            from flows.build import build_corpus

            report = build_corpus(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    except GateError as failed:
        raise typer.Exit(show_failed_gates(failed, failed.report, as_json, build_summary)) from None
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
    from distill_data.report import ServeReport, serve_summary
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
    from distill_data.report import student_summary
    from flows.train import train_student

    with shown_on_stderr():
        report = train_student(settings, corpus or settings.name)
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

    with shown_on_stderr():
        from flows.evaluate import evaluate_student

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
    from distill_data.report import comparison_summary

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
    from distill_data.report import checks_summary

    checks = examine(load_config(config, set_))
    show({"ok": all(check.ok for check in checks), "checks": checks}, as_json, lambda _: checks_summary(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _with_student(config: Path, overrides: list[str]) -> Any:
    from distill_data.config_file import load_config
    from distill_data.errors import ConfigError

    settings = load_config(config, overrides)
    if settings.student is None:
        raise ConfigError(f"config {config} has no student: section: add one")
    return settings


def _exit_if_paused(report: Any) -> None:
    from distill_data.build import BuildPause

    if isinstance(report, BuildPause):
        raise typer.Exit(PAUSED)
