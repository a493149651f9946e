"""What `compare` tells."""

from __future__ import annotations

from distill_data.build_report import BuildPause
from distill_data.comparison.findings import FIGURES, Comparison
from distill_data.comparison.page import PAGE_NAME, saved, spread
from distill_data.report.build import pause_summary
from distill_data.report.lines import field


def comparison_summary(found: Comparison | BuildPause) -> str:
    """What every way of learning ended at, and what the teacher's distributions saved."""
    if isinstance(found, BuildPause):
        return pause_summary(found)
    seen = ", ".join(f"{arm} {tokens:,}" for arm, tokens in found.tokens.items())
    lines = [
        f"{found.corpus}: a student of {found.parameters:,} parameters, trained for {found.seconds:,.0f} s in all",
        field("seeds", f"{len(found.seeds)}"),
        field("tokens", f"a training saw {seen}"),
    ]
    for name, arms in found.figures.items():
        lines.append(FIGURES[name])
        for arm in arms:
            lines.append(field(arm.arm, f"{spread(arm.final)}  {saved(arm.saved)}".rstrip()))
    lines += [field("page", f"{found.path}/{PAGE_NAME}"), field("figures", f"{found.path}/comparison.json")]
    return "\n".join(lines)
