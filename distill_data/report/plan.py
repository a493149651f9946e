"""What `plan` and `doctor` tell before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from distill_data.build import BuildPlan
from distill_data.doctor import Check
from distill_data.estimate import Estimate, estimate_build
from distill_data.report.lines import field


@dataclass(frozen=True)
class PlanReport:
    """What `plan` found."""

    config: dict[str, Any]
    teacher_id: str
    prompts: int
    dropped_prompts: dict[str, int]
    wanted_traces: int
    finished_traces: int
    estimate: Estimate


def describe_plan(plan: BuildPlan) -> PlanReport:
    """A build plan as figures."""
    dropped = plan.prompts.dropped["drop_reason"].value_counts().to_pylist()
    return PlanReport(
        config=plan.config.model_dump(mode="json"),
        teacher_id=plan.store.teacher_id,
        prompts=len(plan.prompts.table),
        dropped_prompts={count["values"]: count["counts"] for count in dropped},
        wanted_traces=plan.plan.wanted,
        finished_traces=len(plan.plan.finished),
        estimate=estimate_build(plan),
    )


def plan_summary(report: PlanReport) -> str:
    """The resolved config, what is missing, and what it will cost."""
    estimate = report.estimate
    basis = "from this teacher's finished traces" if estimate.measured else "a rule of thumb: nothing is finished yet"
    dropped = "".join(f", {count:,} dropped as {reason}" for reason, count in report.dropped_prompts.items())
    lines = [
        yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True).rstrip(),
        "",
        field("teacher", report.teacher_id),
        field("prompts", f"{report.prompts:,}{dropped}"),
        field(
            "traces",
            f"{report.wanted_traces:,} wanted, {report.finished_traces:,} finished, {estimate.traces:,} missing",
        ),
        field("shards", f"{estimate.shards:,}"),
        field("tokens", f"about {estimate.tokens:,}, at most {estimate.tokens_at_most:,} ({basis})"),
        field("size", f"about {estimate.bytes / 1e6:,.1f} MB in the trace store"),
    ]
    if report.estimate.verdicts:
        lines.append(
            field(
                "judging",
                f"{estimate.verdicts:,} verdicts of a model, about {estimate.judge_tokens:,} tokens, at most "
                f"{estimate.judge_tokens_at_most:,}",
            )
        )
    return "\n".join(lines)


def checks_summary(checks: list[Check]) -> str:
    """A line per check."""
    return "\n".join(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<10}{check.detail}" for check in checks)
