"""The figures of a build: finished, or paused; and whether its version is promoted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from distill_data.build import BuildPlan, replanned
from distill_data.corpus.manifest import Manifest
from distill_data.corpus.versions import version_folder
from distill_data.errors import GateError
from distill_data.promotion import Promotion, promote
from distill_data.teachers.generation import NOTHING_GENERATED, GenerationReport


@dataclass(frozen=True)
class BuildReport:
    """What a build did; `build --json` prints it."""

    corpus: str  # NAME@vN
    path: str
    created: bool  # False: this version was there already
    digest: str
    rows: int
    train: int
    validation: int
    dropped: dict[str, int]
    pass_rate: float | None
    generated_traces: int
    generated_tokens: int
    reused_traces: int
    restarts: int  # of workers that died or hung
    regenerated_traces: int  # that died with them
    dead_letters: int
    load_seconds: float
    engine_seconds: float
    tokens_per_second: float
    soft_label_bytes_per_token: float | None
    model_verdicts: int = 0  # that models gave in this build
    judge_tokens: int = 0  # that they took for it
    promotion: Promotion | None = None  # None until the gates were looked at

    @property
    def spent(self) -> GenerationReport:
        """What it took of a budget."""
        tokens, seconds = self.generated_tokens + self.judge_tokens, self.load_seconds + self.engine_seconds
        return GenerationReport(self.generated_traces, tokens, 0, self.load_seconds, self.engine_seconds, seconds)


@dataclass(frozen=True)
class BuildPause:
    """What a build did that stopped before its end, as it was asked to; the same command goes on."""

    corpus: str  # NAME: there is no new version
    paused: str  # why
    generated_traces: int
    generated_tokens: int
    missing_traces: int
    model_verdicts: int = 0
    judge_tokens: int = 0
    missing_verdicts: int = 0  # on the traces that are there


def report_build(
    build: BuildPlan,
    generation: GenerationReport,
    manifest: Manifest,
    created: bool,
    judging: GenerationReport = NOTHING_GENERATED,
) -> BuildReport:
    """The figures of a finished build."""
    statistics = manifest.statistics
    return BuildReport(
        corpus=f"{manifest.name}@v{manifest.version}",
        path=str(version_folder(build.config.root, manifest.name, manifest.version)),
        created=created,
        digest=manifest.digest,
        rows=manifest.counts["kept"],
        train=manifest.counts["train"],
        validation=manifest.counts["validation"],
        dropped=manifest.dropped,
        pass_rate=statistics.get("pass_rate"),
        generated_traces=generation.traces,
        generated_tokens=generation.tokens,
        reused_traces=len(build.plan.finished),
        restarts=generation.restarts,
        regenerated_traces=generation.regenerated,
        dead_letters=generation.dead_letters,
        load_seconds=round(generation.load_seconds, 2),
        engine_seconds=round(generation.engine_seconds, 2),
        tokens_per_second=round(generation.tokens_per_second, 1),
        soft_label_bytes_per_token=statistics.get("soft_label_bytes_per_token"),
        model_verdicts=judging.traces,
        judge_tokens=judging.tokens,
    )


def report_pause(
    build: BuildPlan, generation: GenerationReport, judging: GenerationReport = NOTHING_GENERATED
) -> BuildPause:
    """The figures of a build that paused."""
    return BuildPause(
        corpus=build.config.name,
        paused=generation.paused or judging.paused or "",
        generated_traces=generation.traces,
        generated_tokens=generation.tokens,
        missing_traces=len(build.plan.missing) - generation.traces,
        model_verdicts=judging.traces,
        judge_tokens=judging.tokens,
        missing_verdicts=0 if generation.paused else replanned(build).unjudged,
    )


def is_promoted(report: BuildReport) -> bool:
    """Whether the version goes further: is published and trained on."""
    return report.promotion is not None and report.promotion.promoted


def promote_version(build: BuildPlan, report: BuildReport, manifest: Manifest) -> BuildReport:
    """The report with what became of the version: promoted, or why not.

    Raises:
        GateError: it failed a gate; the error holds the report.
    """
    promotion = promote(build.config, manifest, report.created)
    report = replace(report, promotion=promotion)
    if failed := promotion.failed_gates:
        raise GateError(
            f"{report.corpus} is not promoted: {'; '.join(failed)}: change what it is made of or the gates, or promote "
            f"it as it is with `distill-data corpus tag {report.corpus} stable`",
            report,
        )
    return report
