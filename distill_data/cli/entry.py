"""The command line: outermost, thin."""

from __future__ import annotations

import sys
from typing import Any

import typer

from distill_data.cli import corpora, jobs
from distill_data.cli.output import fail, interrupted
from distill_data.errors import DistillDataError

app = typer.Typer(
    name="distill-data",
    help="Turn a strong open language model into a small one: corpora of traces with soft labels, and students.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    jobs.run,
    jobs.serve,
    jobs.plan,
    jobs.build,
    jobs.train,
    jobs.evaluate,
    jobs.compare,
    jobs.doctor,
    corpora.report,
    corpora.publish,
):
    app.command()(command)
app.add_typer(corpora.corpus_app, name="corpus")

USAGE_ERROR: Any = typer.BadParameter.__bases__[0]  # typer carries a copy of click of its own
INTERRUPTED = 130  # what typer makes of Ctrl-C


def main() -> None:
    """Run the command line; exit 0: done, 1: failed, 2: wrong usage or config, 3: paused as asked, 4: a gate failed."""
    try:
        status = app(standalone_mode=False)
    except DistillDataError as error:
        status = fail(str(error), type(error).__name__, error.exit_code)
    except USAGE_ERROR as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(2)
        status = fail(f"{error.format_message().rstrip('.')}: see `distill-data --help`", "UsageError", 2)
    except Exception as error:
        if "--verbose" in sys.argv or "-v" in sys.argv:
            raise
        what = " ".join(str(error).split())[:500]
        status = fail(f"{type(error).__name__}: {what}: run again with --verbose to see where", type(error).__name__, 1)
    if status == INTERRUPTED:
        status = interrupted()
    sys.exit(status)
