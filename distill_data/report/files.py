"""What was made of a version: its page, an export, what is published."""

from __future__ import annotations

from typing import Any

from distill_data.export import ExportReport
from distill_data.publish.report import PublishReport
from distill_data.report.lines import field


def page_summary(found: dict[str, Any]) -> str:
    """Where `report` wrote the page of a version, and what is not in it."""
    lines = [f"the report of {found['corpus']} is {found['path']}"]
    if found["without_token_texts"] is not None:
        lines.append(field("left out", f"token probabilities: {found['without_token_texts']}"))
    return "\n".join(lines)


def export_summary(report: ExportReport) -> str:
    """What `corpus export` wrote, and what is not in it."""
    lines = [f"{report.corpus} is exported for {report.format}"]
    lines += [field(split, f"{rows:,} traces") for split, rows in report.rows.items()]
    lines.append(field("size", f"{report.bytes / 1e6:,.1f} MB"))
    lines += [field("lost", what) for what in report.lost]
    lines.append(field("folder", f"{report.path}: its README.md says what the tool's config needs"))
    return "\n".join(lines)


def publish_summary(report: PublishReport) -> str:
    """What was published where; of a dry run, the files and the card that would be."""
    size = f"{len(report.files):,} files, {report.bytes / 1e6:,.1f} MB"
    if report.delivery is None:
        files = [field(f"{file.bytes:,}", file.path) for file in report.files]
        return "\n".join([f"{report.corpus} would go to {report.destination}: {size}", *files, "", report.card or ""])
    if report.already_there:
        return f"{report.corpus} is at {report.delivery.address} already; nothing was sent"
    lines = [f"{report.corpus} is published", field("where", report.delivery.address), field("files", size)]
    lines.append(field("new", f"{report.bytes_sent / 1e6:,.1f} MB"))
    return "\n".join(lines + ([field("revision", report.revision)] if report.revision else []))
