"""What `run` tells: the summaries of all that it did, or one line."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from distill_data.build_report import BuildPause, BuildReport
from distill_data.publish.report import PublishReport
from distill_data.report.build import build_summary
from distill_data.report.files import publish_summary
from distill_data.report.student import student_summary
from distill_data.rounds import RoundsReport, rounds_summary
from distill_data.student.job import StudentReport


@dataclass(frozen=True)
class RunReport:
    """What `run` did, section by section; `student` and `published` are None where the config asks for none."""

    build: BuildReport | BuildPause
    student: StudentReport | None
    published: PublishReport | None = None
    rounds: RoundsReport | None = None


def run_summary(report: RunReport) -> str:
    """The closing summary of `run`, with what to try next."""
    parts = [build_summary(report.build)]
    if isinstance(report.build, BuildPause):
        return parts[0]
    if report.published is not None:
        parts.append(publish_summary(report.published))
    if report.student is not None:
        parts.append(student_summary(report.student))
    if report.rounds is not None:
        parts.append(rounds_summary(report.rounds))
    corpus = f"{report.build.corpus}{_root_option(report.build)}"
    parts.append(
        "\n".join(
            [
                "next",
                f"  distill-data corpus show {corpus}",
                f"  distill-data corpus verify {corpus}",
                "  raise teacher.sampling.samples or prompts' size and run again: only what is new is generated",
            ]
        )
    )
    return "\n\n".join(parts)


def _root_option(report: BuildReport) -> str:
    """` --root ROOT` where the version, ROOT/corpora/NAME/vN, is not under ./data."""
    root = Path(report.path).parents[2]
    return "" if root == Path("data") else f" --root {shlex.quote(str(root))}"


def one_line(report: RunReport) -> str:
    """What a run came to, for a place with room for one line."""
    build = report.build
    if isinstance(build, BuildPause):
        return f"{build.corpus} is paused: {build.paused}"
    made = "is new" if build.created else "is up to date: nothing new"
    sent = report.published is not None and not report.published.already_there
    published = f"; published to {report.published.destination}" if report.published is not None and sent else ""
    student = "" if report.student is None else f"; student {report.student.name}"
    note = "" if build.promotion is None or build.promotion.note is None else f"; {build.promotion.note}"
    figures = f"{build.rows:,} rows, {build.generated_traces:,} traces generated"
    return f"{build.corpus} {made}; {figures}{published}{student}{note}"
