"""What `corpus diff`, `corpus lineage` and `corpus gc` tell."""

from __future__ import annotations

from typing import Any

from distill_data.corpus.diff import VersionDiff
from distill_data.corpus.gc import GcPlan
from distill_data.corpus.lineage import Lineage
from distill_data.report.lines import abridged, field, figure

_SHOWN = 100  # characters of a value


def diff_summary(found: VersionDiff, rows: list[dict[str, Any]] | None) -> str:
    """What changed, a line each; `rows` one by one where they are given."""
    if found.same:
        return f"{found.before} and {found.after} are the same: equal digests"
    lines = [f"{found.before} -> {found.after}"]
    for name, section in (("config", found.config), ("teacher", found.teacher), ("package", found.packages)):
        lines += [field(name, f"{key}: {_abridged(old)} -> {_abridged(new)}") for key, (old, new) in section.items()]
    for source, prompts in found.prompts.items():
        told = f"{source}: {prompts.added:,} added, {prompts.removed:,} removed, {prompts.kept:,} in both"
        lines.append(field("prompts", told))
    otherwise = f", {found.said_otherwise:,} generated anew" if found.said_otherwise else ""
    lines.append(field("rows", f"{found.stayed:,} stayed{otherwise}"))
    lines += [field("left", f"{count:,}: {reason}") for reason, count in found.left.items()]
    lines += [field("came", f"{count:,}: {_came(reason)}") for reason, count in found.came.items()]
    lines += [
        field("statistics", f"{name}: {figure(old)} -> {figure(new)}")
        for name, (old, new) in found.statistics.items()
        if old != new
    ]
    if rows is not None:
        lines += [f"{row['change']:<15}{row['trace_id']}  {row['reason'] or ''}".rstrip() for row in rows]
    return "\n".join(lines)


def lineage_summary(found: Lineage) -> str:
    """Where a row came from, nearest first."""
    trace = found.trace
    lines = [
        f"{trace['trace_id'] or trace['prompt_id']} in {found.corpus}",
        field("file", f"{found.file}, row {found.row:,} (sha256 {found.sha256[:16]})"),
        field("verdict", _verdict(found)),
        field("part", f"{found.part}, row {found.part_row:,}" if found.part is not None else found.store),
        field("prompt", f"{trace['prompt_id']}: {_abridged(trace['messages'][-2:][0]['content'])}"),
        field("source", ", ".join(f"{key} {_abridged(value)}" for key, value in found.source.items())),
        field("teacher", found.teacher_id),
    ]
    lines += [f"    {key}: {_abridged(value)}" for key, value in found.teacher.items()]
    lines.append(field("sampling", ", ".join(f"{key} {value}" for key, value in found.sampling.items())))
    lines.append(field("code", found.git_revision or "not from a checkout"))
    return "\n".join(lines)


def gc_summary(plan: GcPlan) -> str:
    """What can go, or went, and what stays."""
    kept = f"{plan.kept_parts:,} parts stay, for {', '.join(plan.kept_for) or 'no version'}"
    if not plan.free:
        return f"nothing to free: {kept}"
    lines = [
        f"{part.teacher_id}/{part.name}  {part.traces:,} traces, {part.tokens:,} tokens, {part.bytes:,} bytes"
        for part in plan.free
    ]
    state = "freed" if plan.freed else "can be freed"
    lines += [f"{len(plan.free):,} parts, {plan.bytes / 1e6:,.1f} MB, {state}", kept]
    return "\n".join(lines)


def _verdict(found: Lineage) -> str:
    dropped = (
        ""
        if found.dropped is None
        else f"dropped as {found.dropped} ({found.trace.get('drop_detail') or 'no detail'}); "
    )
    if found.judge is None:
        return f"{dropped}nobody judged it"
    passed = {True: "passed", False: "did not pass", None: "has no verdict"}[found.trace["passed"]]
    score = "" if found.trace["score"] is None else f", score {found.trace['score']:g}"
    return f"{dropped}{passed}{score} (verifier {found.judge['verifier']})"


def _came(reason: str) -> str:
    """A drop reason on the other side is what the row was before."""
    return reason if " " in reason else f"was {reason}"


def _abridged(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return abridged(" ".join(text.split()), _SHOWN)
