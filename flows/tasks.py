"""Prefect tasks, one per step; the files on disk decide what is done, so nothing is cached or persisted here."""

from __future__ import annotations

import time
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE

from distill_data.build import BuildPlan, assemble_version, generate_missing, plan_build
from distill_data.build_report import BuildReport, promote_version
from distill_data.config import Config
from distill_data.corpus.assemble import AssemblyProgress
from distill_data.corpus.manifest import Manifest
from distill_data.doctor import require_ready
from distill_data.judging_build import generate_verdicts
from distill_data.progress import display
from distill_data.prompts import PromptSet
from distill_data.screening import prompts_of
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport
from flows.reporting import start_progress, update_progress

ARTIFACT_SECONDS = 5.0  # between updates of the progress that Prefect shows


@task(name="load prompts", cache_policy=NO_CACHE)
def load_prompts_task(config: Config) -> PromptSet:
    """Read every prompt source, without what benchmarks and other prompts have already."""
    return prompts_of(config)


@task(name="plan", cache_policy=NO_CACHE)
def plan_task(config: Config, prompts: PromptSet, retry_failed: bool) -> BuildPlan:
    """Find what is missing."""
    return plan_build(config, prompts, retry_failed)


@task(name="check", cache_policy=NO_CACHE)
def check_task(plan: BuildPlan) -> None:
    """Fail before an engine starts, not after."""
    require_ready(plan)


@task(name="generate", cache_policy=NO_CACHE)
def generate_task(plan: BuildPlan, budget: Budget, verbose: bool) -> tuple[BuildPlan, GenerationReport]:
    """Run teacher workers until nothing is missing, or the budget is spent."""
    artifact = start_progress("Traces generated")
    shown = ShownProgress(artifact)
    plan, report = generate_missing(plan, shown, budget=budget, say=display().note, verbose=verbose)
    if report.paused is None:
        update_progress(artifact, 100.0)
    return plan, report


@task(name="judge", cache_policy=NO_CACHE)
def judge_task(plan: BuildPlan, generated: GenerationReport, budget: Budget, verbose: bool) -> GenerationReport:
    """Have models judge what they did not yet, or as much as is left of the budget."""
    shown = ShownProgress(start_progress("Verdicts of models"), "verdicts")
    return generate_verdicts(plan, shown, generated, budget=budget, say=display().note, verbose=verbose)


@task(name="assemble", cache_policy=NO_CACHE)
def assemble_task(plan: BuildPlan) -> tuple[Manifest, bool]:
    """Judge, filter and write a version, unless it exists."""
    return assemble_version(plan, show_assembly)


@task(name="promote", cache_policy=NO_CACHE)
def promote_task(plan: BuildPlan, report: BuildReport, manifest: Manifest) -> BuildReport:
    """Give the version the tag `stable` if it passes the gates."""
    return promote_version(plan, report, manifest)


def show_assembly(progress: AssemblyProgress) -> None:
    """Show where judging and writing are."""
    figures = "" if progress.pass_rate is None else f"pass rate {progress.pass_rate:.0%}"
    display().update(progress.stage, progress.done, progress.total, figures)


class ShownProgress:
    """Passes generation progress on to the person's display and, every few seconds, to Prefect."""

    def __init__(self, artifact: UUID | None, stage: str = "generate") -> None:
        self._artifact = artifact
        self._stage = stage
        self._sent_at = time.monotonic()

    def __call__(self, progress: GenerationProgress) -> None:
        """Show where generation is."""
        display().update(self._stage, progress.traces, progress.wanted, _figures(progress))
        if time.monotonic() - self._sent_at >= ARTIFACT_SECONDS:
            self._sent_at = time.monotonic()
            update_progress(self._artifact, 100.0 * progress.traces / max(1, progress.wanted))


def _figures(progress: GenerationProgress) -> str:
    if progress.waiting_for:
        return f"waiting for {progress.waiting_for}"
    if not progress.workers_ready:
        return "starting the teacher again" if progress.restarts else "loading the teacher"
    rate = progress.tokens / progress.seconds if progress.seconds else 0.0
    left = progress.wanted - progress.traces
    eta = f", about {left * progress.seconds / progress.traces:.0f} s left" if progress.traces and left else ""
    restarts = f", {progress.restarts} restarts" if progress.restarts else ""
    return f"{progress.tokens:,} tokens, {rate:,.0f} tok/s{eta}{restarts}"
