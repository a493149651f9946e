"""The way from prompts to kept rows, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass

from distill_data.corpus.read import Corpus
from distill_data.page.scan import Scan


@dataclass(frozen=True)
class Stage:
    """One stage: a bar whose parts are (start, width), in percent of the widest stage."""

    label: str
    count: int | None
    note: str
    parts: list[tuple[float, float]]

    @property
    def width(self) -> float:
        """Of the whole bar."""
        return sum(width for _, width in self.parts)


def stages(corpus: Corpus, found: Scan) -> list[Stage]:
    """Prompts, traces, passed, kept, and the split; a stage without a count did not happen."""
    manifest = corpus.manifest
    counts = manifest.counts
    prompts, traces, kept = counts["prompts"], counts["traces"], counts["kept"]
    widest = max(prompts, traces, 1)

    def stage(label: str, count: int, note: str, *parts: int) -> Stage:
        shares = [100.0 * part / widest for part in parts or (count,)]
        starts = [sum(shares[:number]) for number in range(len(shares))]
        return Stage(label, count, note, list(zip(starts, shares, strict=True)))

    judged = (
        stage("Passed", found.passed, f"{_share(found.passed, found.judged)} of {found.judged:,} judged traces")
        if found.judged
        else Stage("Passed", None, "answers were not judged", [])
    )
    before = f"{manifest.prompts.dropped:,} dropped before that" if manifest.prompts.dropped else "none dropped before"
    return [
        stage("Prompts", prompts, f"asked; {before}"),
        stage("Traces", traces, f"{traces / max(prompts, 1):.3g} per prompt"),
        judged,
        stage("Kept", kept, f"{_share(kept, traces)} of traces"),
        stage(
            "Split",
            kept,
            f"{counts['train']:,} train, {counts['validation']:,} validation",
            counts["train"],
            counts["validation"],
        ),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"
