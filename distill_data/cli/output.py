"""What a command says: quiet libraries, one result on stdout, one line where it fails."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

from distill_data.errors import GateError


def prepare(verbose: bool, leave: bool = True) -> None:
    """Leave well on Ctrl-C, and keep libraries quiet unless they shall speak; set before they are imported.

    Without `leave` the command handles Ctrl-C itself.
    """
    if leave:
        from distill_data.interrupt import leave_on_interrupt

        leave_on_interrupt(interrupted)
    if verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO")
        return
    import warnings

    warnings.filterwarnings("ignore", module=r"(prefect|pydantic|transformers|torch|sqlalchemy)(\..*)?")
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def show(result: Any, as_json: bool, summary: Any) -> None:
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


def show_failed_gates(error: GateError, report: Any, as_json: bool, summary: Any) -> int:
    """Show the report of a version that failed a gate, and one line on stderr; the exit status."""
    show(report, as_json, summary)
    sys.stdout.flush()
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def interrupted() -> int:
    """Say that what was finished is kept; the exit status."""
    from rich.console import Console

    Console(stderr=True).show_cursor()  # a live display hides it
    message = "interrupted: what was finished is kept; run the same command to continue"
    return fail(message, "Interrupted", 1)


def fail(message: str, kind: str, status: int) -> int:
    """Say on stderr, in one line, what went wrong; with --json also as the one document on stdout."""
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "kind": kind}, ensure_ascii=False))
    print(f"error: {message}", file=sys.stderr)
    sys.stdout.flush()
    return status
