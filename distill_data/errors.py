"""Every error that a user can meet; each message ends with what to do."""

from __future__ import annotations

import os
from typing import Any


class DistillDataError(Exception):
    """Something went wrong that the message explains. The command line shows one line and exits 1."""

    exit_code = 1


class ConfigError(DistillDataError):
    """The config cannot be used as written. Nothing was started; the command line exits 2."""

    exit_code = 2


class InputError(DistillDataError):
    """Prompts, a reference or an argument cannot be used. Nothing was started; the command line exits 2."""

    exit_code = 2


class ModelError(DistillDataError):
    """A teacher's or student's model or tokenizer cannot be used. The command line exits 2."""

    exit_code = 2


class TeacherError(DistillDataError):
    """The teacher stopped before its work was done; everything it committed is kept."""


class TraceStoreError(DistillDataError):
    """A part of the trace store, or the saved prompts, are damaged or cannot be written."""


class CorpusError(DistillDataError):
    """A corpus version does not exist, is damaged, or cannot be written."""


class GateError(DistillDataError):
    """A version was made and failed a gate, so that it is not promoted, published or trained on; exits 4.

    `report` is what the build has to tell.
    """

    exit_code = 4

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class PublishError(DistillDataError):
    """A version cannot be published there, or not now; nothing of it is visible there."""


class StudentError(DistillDataError):
    """A student cannot be trained or evaluated on this corpus."""


def reason_of(error: Exception) -> str:
    """What an exception of Python or Arrow says, as one short line for a message."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else " ".join(str(error).split())[:200]
