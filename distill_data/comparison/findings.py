"""What the students of a comparison have learnt, as their metrics say: curves, final figures, savings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_data.compare_config import Arm
from distill_data.comparison.arms import Training
from distill_data.comparison.curves import Curve, Interval, Saving, interval, saving
from distill_data.identity import digest
from distill_data.parquet import place
from distill_data.student.metrics import METRICS_NAME

FIGURES = {
    "teacher_cross_entropy": "cross-entropy on held-out text of the teacher, nats per token",
    "teacher_kl": "KL to the teacher on held-out text, nats per token",
    "reference_cross_entropy": "cross-entropy on held-out references, nats per token",
}
"""What is looked at, and what it is called."""


@dataclass(frozen=True)
class ArmFigures:
    """One arm under one figure: its curves, seed by seed, and where they ended."""

    arm: Arm
    curves: list[Curve]
    final: Interval
    saved: Saving | None  # what soft labels save against it; None of soft labels themselves


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; comparison.json holds the same."""

    corpus: str
    path: str
    parameters: int
    seeds: list[int]
    seconds: float  # of all trainings
    tokens: dict[str, int]  # of one training of every arm
    figures: dict[str, list[ArmFigures]]


def findings(done: Sequence[Training]) -> Comparison:
    """Read the metrics of trained students and compare them."""
    reports = [json.loads((one.plan.folder / "training.json").read_text("utf-8")) for one in done]
    by_arm: dict[Arm, list[Training]] = {}
    for one in done:
        by_arm.setdefault(one.arm, []).append(one)
    curves: dict[Arm, list[dict[str, Curve]]] = {
        arm: [_curves(one.plan.folder / METRICS_NAME) for one in trained] for arm, trained in by_arm.items()
    }
    there = [name for name in FIGURES if all(name in found for group in curves.values() for found in group)]
    plan = done[0].plan
    return Comparison(
        corpus=plan.corpus.reference,
        path=str(_folder(done)),
        parameters=reports[0]["parameters"],
        seeds=[one.seed for one in by_arm["soft_labels"]],
        seconds=sum(report["seconds"] for report in reports),
        tokens={arm: group[0][there[0]].tokens[-1] for arm, group in curves.items()},
        figures={name: _figures({arm: [found[name] for found in group] for arm, group in curves.items()})
                 for name in there},
    )  # fmt: skip


def write_findings(found: Comparison) -> Path:
    """comparison.json in the comparison's folder."""
    file = Path(found.path) / "comparison.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    place((json.dumps(asdict(found), indent=2) + "\n").encode(), file)
    return file


def _folder(done: Sequence[Training]) -> Path:
    """Named by what was trained."""
    plan, names = done[0].plan, sorted(one.plan.folder.name for one in done)
    return plan.folder.parents[1] / "comparisons" / f"{plan.corpus.name}-v{plan.corpus.version}-{digest(names)[:8]}"


def _figures(curves: dict[Arm, list[Curve]]) -> list[ArmFigures]:
    ours = curves["soft_labels"]
    return [
        ArmFigures(
            arm=arm,
            curves=group,
            final=interval([curve.final for curve in group]),
            saved=None if arm == "soft_labels" else saving(ours, group),
        )
        for arm, group in curves.items()
    ]


def _curves(metrics: Path) -> dict[str, Curve]:
    """The looks of one training over the tokens that it had seen."""
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    seen = {0: 0} | {line["step"]: line["tokens"] for line in lines if "tokens" in line}
    looks = {name: [line for line in lines if name in line] for name in FIGURES}
    return {
        name: Curve([seen[line["step"]] for line in found], [line[name] for line in found])
        for name, found in looks.items()
        if found
    }
