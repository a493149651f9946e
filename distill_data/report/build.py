"""What a build tells: finished, or paused."""

from __future__ import annotations

from pathlib import Path

from distill_data.build_report import BuildPause, BuildReport
from distill_data.promotion import Promotion
from distill_data.report.lines import field


def build_summary(report: BuildReport | BuildPause) -> str:
    """A build's figures, a line each."""
    if isinstance(report, BuildPause):
        return pause_summary(report)
    total = report.rows + sum(report.dropped.values())
    lines = [
        f"{report.corpus} is {'new' if report.created else 'up to date: nothing to do'}",
        field("kept", f"{report.rows:,} of {total:,} rows: {report.train:,} train, {report.validation:,} validation"),
    ]
    dropped = sorted(report.dropped.items(), key=lambda item: -item[1])
    if dropped:
        lines.append(field("dropped", ", ".join(f"{reason} {count:,}" for reason, count in dropped)))
    if report.pass_rate is not None:
        lines.append(field("pass rate", f"{report.pass_rate:.1%} of judged traces"))
    if report.generated_traces:
        lines.append(
            field(
                "generated",
                f"{report.generated_traces:,} traces, {report.generated_tokens:,} tokens in "
                f"{report.engine_seconds:.0f} s ({report.tokens_per_second:,.0f} tok/s; "
                f"the engine took {report.load_seconds:.0f} s to load)",
            )
        )
    if report.model_verdicts:
        lines.append(field("judged", f"{report.model_verdicts:,} verdicts of a model, {report.judge_tokens:,} tokens"))
    if report.restarts:
        lines.append(
            field(
                "restarts", f"{report.restarts:,} of teacher workers, which cost {report.regenerated_traces:,} traces"
            )
        )
    if report.dead_letters:
        lines.append(
            field("dead", f"{report.dead_letters:,} traces of prompts that kill the engine: see dead_letters.jsonl")
        )
    lines.append(field("reused", f"{report.reused_traces:,} traces from the store"))
    if report.soft_label_bytes_per_token is not None:
        lines.append(
            field("size", f"{report.soft_label_bytes_per_token:.0f} bytes per completion token of soft labels")
        )
    lines += _promotion_lines(report.promotion)
    lines.append(field("corpus", report.path))
    if (page := Path(report.path) / "report.html").is_file():  # versions made before there were reports have none
        lines.append(field("report", str(page)))
    return "\n".join(lines)


def _promotion_lines(promotion: Promotion | None) -> list[str]:
    """Whether a version is promoted, or each gate that it failed."""
    if promotion is None:
        return []
    lines = [field("gate", f"FAILED {line}") for line in promotion.failed_gates]
    if promotion.promoted:
        lines.append(field("promoted", "this version is stable"))
    elif lines:
        stays = "there is none" if promotion.stable is None else f"stays v{promotion.stable}"
        lines.append(field("stable", f"{stays}: this version is not promoted"))
    return lines if promotion.note is None else [*lines, field("note", promotion.note)]


def pause_summary(report: BuildPause) -> str:
    """Why a build stopped before its end, and what is left."""
    lines = [
        f"{report.corpus} is paused: {report.paused}",
        field("generated", f"{report.generated_traces:,} traces, {report.generated_tokens:,} tokens, all kept"),
    ]
    if report.model_verdicts:
        lines.append(field("judged", f"{report.model_verdicts:,} verdicts, {report.judge_tokens:,} tokens, all kept"))
    if report.missing_verdicts:
        lines.append(field("missing", f"{report.missing_verdicts:,} verdicts: the same command goes on"))
    else:
        lines.append(field("missing", f"{report.missing_traces:,} traces: the same command goes on"))
    return "\n".join(lines)
