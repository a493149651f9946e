"""The command line: outermost, thin; every heavy import sits inside its command."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from distill_data.errors import DistillDataError

app = typer.Typer(
    name="distill-data",
    help="Turn a strong open language model into a small one: corpora of traces with soft labels, and students.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
corpus_app = typer.Typer(help="Look at corpus versions.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")

USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # typer carries a copy of click of its own
INTERRUPTED = 130  # what typer makes of Ctrl-C
PAUSED = 3

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a config value (YAML); repeatable.")
]
NO_OVERRIDES: list[str] = []
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Let vLLM, Prefect and transformers speak.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Pause after this many completion tokens; all is kept.")
]
MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0, help="Pause after this many hours of generating; all is kept.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Generate traces again that failed or killed the engine before.")
]
CorpusOption = Annotated[
    str | None, typer.Option("--corpus", metavar="NAME@vN", help="Corpus version; the config's latest when left out.")
]
Reference = Annotated[str, typer.Argument(metavar="NAME@vN", help="Corpus version; NAME alone is the latest.")]
Root = Annotated[str, typer.Option(envvar="DISTILL_DATA_ROOT", help="Folder that holds the corpora.")]
ExportFormat = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="axolotl, distillkit, trl, trl-prompt-completion, ms-swift or jsonl."
    ),
]
ExportFolder = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Where to; ROOT/exports/NAME-vN-FORMAT when left out.")
]
ReportFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to; ROOT/reports/NAME-vN.html when left out.")
]
Split = Annotated[str | None, typer.Option(metavar="SPLIT", help="Only train or only validation.")]


@app.command()
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
    _prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report import run_summary
    from distill_data.session import early_session
    from distill_data.teachers.generation import Budget

    with shown_on_stderr(), early_session(settings, verbose):
        from flows.distill import distill

        report = distill(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    _print(report, as_json, run_summary)
    _exit_if_paused(report.build)


@app.command()
def plan(config: ConfigPath, set_: Overrides = NO_OVERRIDES, as_json: AsJson = False) -> None:
    """Show the resolved config, what is missing, and what it will cost; starts no engine."""
    _prepare(verbose=False)
    from distill_data.build import plan_build
    from distill_data.config_file import load_config
    from distill_data.report import describe_plan, plan_summary
    from distill_data.screening import prompts_of

    settings = load_config(config, set_)
    described = describe_plan(plan_build(settings, prompts_of(settings)))
    _print(described, as_json, plan_summary)


@app.command()
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
    _prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report import build_summary
    from distill_data.session import early_session
    from distill_data.teachers.generation import Budget

    with shown_on_stderr(), early_session(settings, verbose):
        from flows.build import build_corpus

        report = build_corpus(settings, verbose, Budget(max_tokens, max_hours), retry_failed)
    _print(report, as_json, build_summary)
    _exit_if_paused(report)


@app.command()
def train(
    config: ConfigPath,
    corpus: CorpusOption = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train the config's student on a corpus version and measure it on the held-out rows."""
    settings = _with_student(config, set_)
    _prepare(verbose)
    from distill_data.progress import shown_on_stderr
    from distill_data.report import student_summary
    from flows.train import train_student

    with shown_on_stderr():
        report = train_student(settings, corpus or settings.name)
    _print(report, as_json, student_summary)


@app.command()
def evaluate(
    config: ConfigPath,
    corpus: CorpusOption = None,
    set_: Overrides = NO_OVERRIDES,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure the trained student against its teacher on the held-out rows."""
    settings = _with_student(config, set_)
    _prepare(verbose)
    from distill_data.report import student_summary
    from flows.train import evaluate_student

    _print(evaluate_student(settings, corpus or settings.name), as_json, student_summary)


@app.command()
def doctor(config: ConfigPath, set_: Overrides = NO_OVERRIDES, as_json: AsJson = False) -> None:
    """Check config, prompts, model, template, student and disk before any engine starts."""
    _prepare(verbose=False)
    from distill_data.config_file import load_config
    from distill_data.doctor import examine
    from distill_data.report import checks_summary

    checks = examine(load_config(config, set_))
    _print({"ok": all(check.ok for check in checks), "checks": checks}, as_json, lambda _: checks_summary(checks))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command()
def report(reference: Reference, out: ReportFile = None, root: Root = "./data", as_json: AsJson = False) -> None:
    """Write a version's report: one HTML page with its funnel, figures and example traces."""
    _prepare(verbose=False)
    from distill_data.corpus.read import open_corpus
    from distill_data.page import write_page
    from distill_data.page.texts import teacher_decoder
    from distill_data.report import page_summary

    corpus = open_corpus(reference, root)
    path = out or Path(root) / "reports" / f"{corpus.name}-v{corpus.version}.html"
    decode, missing = teacher_decoder(corpus)
    write_page(corpus, path, decode)
    _print({"corpus": corpus.reference, "path": path, "without_token_texts": missing}, as_json, page_summary)


@corpus_app.command("list")
def corpus_list(root: Root = "./data", as_json: AsJson = False) -> None:
    """List corpora and their versions."""
    from distill_data.corpus.versions import list_corpora, list_versions
    from distill_data.report import corpora_summary

    corpora = {name: list_versions(root, name) for name in list_corpora(root)}
    _print(corpora, as_json, corpora_summary)


@corpus_app.command("show")
def corpus_show(reference: Reference, root: Root = "./data", as_json: AsJson = False) -> None:
    """Show a version's counts, statistics and one abridged row."""
    from distill_data.corpus.read import open_corpus
    from distill_data.report import corpus_summary

    corpus = open_corpus(reference, root)
    _print(corpus.manifest, as_json, lambda _: corpus_summary(corpus))


@corpus_app.command("verify")
def corpus_verify(reference: Reference, root: Root = "./data", as_json: AsJson = False) -> None:
    """Check every file of a version: checksums, schemas, alignment, splits."""
    from distill_data.corpus.check import verify_corpus
    from distill_data.corpus.read import open_corpus
    from distill_data.report import verification_summary

    corpus = open_corpus(reference, root)
    problems = verify_corpus(corpus)
    found = {"corpus": f"{corpus.name}@v{corpus.version}", "ok": not problems, "problems": problems}
    _print(found, as_json, verification_summary)
    if problems:
        raise typer.Exit(1)


@corpus_app.command("export")
def corpus_export(
    reference: Reference,
    format_: ExportFormat,
    out: ExportFolder = None,
    split: Split = None,
    root: Root = "./data",
    as_json: AsJson = False,
) -> None:
    """Write a version as files that another trainer reads, with what its config needs."""
    from distill_data.corpus.read import open_corpus
    from distill_data.export import export_corpus, export_folder
    from distill_data.report import export_summary

    corpus = open_corpus(reference, root)
    report = export_corpus(corpus, format_, out or export_folder(root, corpus, format_), split)
    _print(report, as_json, export_summary)


def _with_student(config: Path, overrides: list[str]) -> Any:
    from distill_data.config_file import load_config
    from distill_data.errors import ConfigError

    settings = load_config(config, overrides)
    if settings.student is None:
        raise ConfigError(f"config {config} has no student: section: add one")
    return settings


def _prepare(verbose: bool) -> None:
    """Leave well on Ctrl-C, and keep libraries quiet unless they shall speak; set before they are imported."""
    from distill_data.interrupt import leave_on_interrupt

    leave_on_interrupt(_interrupted)
    if verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
        return
    import warnings

    warnings.filterwarnings("ignore", module=r"(prefect|pydantic|transformers|torch|sqlalchemy)(\..*)?")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def _exit_if_paused(report: Any) -> None:
    from distill_data.build import BuildPause

    if isinstance(report, BuildPause):
        raise typer.Exit(PAUSED)


def _print(result: Any, as_json: bool, summary: Any) -> None:
    """One JSON document, or the text that a summary makes of the result."""
    if as_json:
        print(json.dumps(result, default=_plain, ensure_ascii=False, indent=2))
    else:
        print(summary(result))


def _plain(value: Any) -> Any:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def main() -> None:
    """Run the command line; exit 0: done, 1: failed, 2: wrong usage or config, 3: paused as asked."""
    try:
        status = app(standalone_mode=False)
    except DistillDataError as error:
        status = _fail(str(error), type(error).__name__, error.exit_code)
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        status = _fail(f"{error.format_message().rstrip('.')}: see `distill-data --help`", "UsageError", 2)
    except Exception as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            raise
        what = " ".join(str(error).split())[:500]
        status = _fail(
            f"{type(error).__name__}: {what}: run again with --verbose to see where", type(error).__name__, 1
        )
    if status == INTERRUPTED:
        status = _interrupted()
    sys.exit(status)


def _interrupted() -> int:
    from rich.console import Console

    Console(stderr=True).show_cursor()  # a live display hides it
    message = "interrupted: what was finished is kept; run the same command to continue"
    return _fail(message, "Interrupted", 1)


def _fail(message: str, kind: str, status: int) -> int:
    """Say on stderr, in one line, what went wrong; with --json also as the one document on stdout."""
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "kind": kind}, ensure_ascii=False))
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    main()
