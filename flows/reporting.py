"""What a person finds in Prefect's UI: run names, tables of counts, a summary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast
from uuid import UUID

from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.logging import get_logger
from prefect.runtime import flow_run

from distill_data.build_report import BuildPause, BuildReport
from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.publish.report import PublishReport
from distill_data.report.build import build_summary
from distill_data.report.version import funnel


@contextmanager
def never_fatal() -> Iterator[None]:
    """What Prefect only shows must not end a job that works: a failure is logged and forgotten."""
    try:
        yield
    except Exception as error:
        get_logger("distill_data").warning("Prefect could not be told: %s", error)


def name_run(name: str) -> None:
    """Name the running flow run after what it made."""
    run_id = flow_run.get_id()
    with never_fatal(), get_client(sync_client=True) as client:
        client.update_flow_run(UUID(str(run_id)), name=name)


def start_progress(description: str) -> UUID | None:
    """A progress bar in Prefect's UI; None where Prefect could not be told."""
    with never_fatal():
        return cast(UUID, create_progress_artifact(0.0, key="generation", description=description))
    return None


def update_progress(artifact: UUID | None, percent: float) -> None:
    """Move the bar, if there is one."""
    if artifact is not None:
        with never_fatal():
            update_progress_artifact(artifact, percent)


def publish_summary(reference: str, kind: str, text: str) -> None:
    """A summary as plain text."""
    with never_fatal():
        create_markdown_artifact(f"```\n{text}\n```", key=f"{artifact_key(reference)}-{kind}")


def link_to(address: str, key: str, description: str) -> None:
    """A link that a person can follow."""
    with never_fatal():
        create_link_artifact(address, key=key, description=description)


def publish_build_artifacts(report: BuildReport, manifest: Manifest) -> None:
    """What a build made: the version and what became of it, its funnel as a table, a summary."""
    rows = [{"what": what, "traces": count} for what, count in funnel(manifest)]
    with never_fatal():
        key = f"{artifact_key(report.corpus)}-counts"
        create_table_artifact(rows, key=key, description=f"Funnel of {report.corpus}")
    with never_fatal():  # one key per corpus: Prefect shows how it went from run to run
        key = f"{artifact_key(manifest.name)}-version"
        create_markdown_artifact(version_markdown(report), key=key, description=f"Latest build of {manifest.name}")
    publish_summary(report.corpus, "summary", build_summary(report))


def publish_run_summary(report: BuildReport | BuildPause, published: PublishReport | None) -> None:
    """On the page of a scheduled run itself: what its subflows show on theirs, as far as it matters the next morning.

    One key per corpus: Prefect shows how it went from night to night.
    """
    with never_fatal():
        key, shown = f"{artifact_key(report.corpus.partition('@')[0])}-run", run_markdown(report, published)
        create_markdown_artifact(shown, key=key, description=f"What the run gave: {report.corpus}")


def run_markdown(report: BuildReport | BuildPause, published: PublishReport | None) -> str:
    """Which version a run gave, its funnel, and where it was published."""
    if isinstance(report, BuildPause):
        return f"# {report.corpus}\n\nPaused: {report.paused}. The next run goes on."
    lines = [version_markdown(report), "", "| what | traces |", "| --- | ---: |"]
    lines += [f"| {what} | {count:,} |" for what, count in funnel(read_manifest(Path(report.path)))]
    if published is not None and published.delivery is not None:
        lines += ["", f"Published: {published.delivery.address}"]
    return "\n".join(lines)


def version_markdown(report: BuildReport) -> str:
    """Which version a build gave, and whether it is promoted."""
    state = "new" if report.created else "there already: nothing is new"
    lines = [f"# {report.corpus}", "", f"This version is {state}. It has {report.rows:,} rows.", ""]
    promotion = report.promotion
    if promotion is not None and promotion.promoted:
        lines.append(f"**Promoted**: `{report.corpus.partition('@')[0]}@stable` is this version.")
    elif promotion is not None:
        stable = "no version" if promotion.stable is None else f"v{promotion.stable}"
        lines += [f"**Not promoted**; stable is {stable}.", ""]
        lines += [f"- failed gate {line}" for line in promotion.failed_gates]
    if promotion is not None and promotion.note is not None:
        lines += ["", promotion.note]
    return "\n".join([*lines, "", f"Digest `{report.digest}`, folder `{report.path}`."])


def artifact_key(reference: str) -> str:
    """A Prefect artifact key (lower case letters, digits and dashes) for a corpus reference."""
    return re.sub(r"[^a-z0-9]+", "-", reference.lower()).strip("-")
