"""What a person finds in Prefect's UI: run names, tables of counts, a summary."""

from __future__ import annotations

import re
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from distill_data.build import BuildReport
from distill_data.report import build_summary


def name_run(name: str) -> None:
    """Name the running flow run after what it made."""
    run_id = flow_run.get_id()
    if run_id:
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(str(run_id)), name=name)


def publish_build_artifacts(report: BuildReport) -> None:
    """A table of counts and a summary of a build."""
    counts = {"rows": report.rows, "train": report.train, "validation": report.validation}
    rows = [{"what": what, "traces": count} for what, count in counts.items()]
    rows += [{"what": f"dropped: {reason}", "traces": count} for reason, count in report.dropped.items()]
    key = artifact_key(report.corpus)
    create_table_artifact(rows, key=f"{key}-counts", description=f"Rows of {report.corpus}")
    create_markdown_artifact(f"```\n{build_summary(report)}\n```", key=f"{key}-summary")


def artifact_key(reference: str) -> str:
    """A Prefect artifact key (lower case letters, digits and dashes) for a corpus reference."""
    return re.sub(r"[^a-z0-9]+", "-", reference.lower()).strip("-")
