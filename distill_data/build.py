"""A build, step by step: who the teacher is, what is missing, generate it, and assemble a version if anything is new.

`flows/build.py` calls these in this order; nothing here knows about orchestration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from distill_data import config
from distill_data.corpus.assemble import Assembly, AssemblyProgress, assemble
from distill_data.corpus.digest import corpus_digest
from distill_data.corpus.labelling import Labelling, read_labelling
from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.versions import version_folder, version_with_digest
from distill_data.errors import TeacherError
from distill_data.filters.benchmark_texts import load_screened_by
from distill_data.filters.decontamination import Benchmarks
from distill_data.judge_config import LlmJudge
from distill_data.judging import answers_to, judges_prompts, judging_job, judging_prompts, model_judges
from distill_data.lease import Busy, traces_in_use
from distill_data.models import load_tokenizer
from distill_data.page import write_page
from distill_data.page.texts import token_texts
from distill_data.planning import Plan, Retries, make_plan, sampled_as
from distill_data.prompts import PromptSet, save_prompts
from distill_data.screening import pinned
from distill_data.session import teacher_session
from distill_data.teacher_identity import TeacherIdentity, identify_teacher
from distill_data.teachers.generation import (
    NO_BUDGET,
    NOTHING_GENERATED,
    Budget,
    GenerationProgress,
    GenerationReport,
    Work,
)
from distill_data.teachers.vllm_reasoning import splitter_of
from distill_data.trace_store import TraceStore

if TYPE_CHECKING:
    from distill_data.teachers.pool import TeacherPool


@dataclass(frozen=True)
class BuildPlan:
    """A build before anything is generated."""

    config: config.Config
    prompts: PromptSet
    identity: TeacherIdentity
    store: TraceStore
    plan: Plan
    retry_failed: bool = False

    @cached_property
    def judgings(self) -> list[BuildPlan]:
        """The build of every model that judges: what it is asked about the finished traces, and what it said so far."""
        return [plan_judging(self, judge) for judge in model_judges(self.config)]

    @property
    def unjudged(self) -> int:
        """Verdicts that models have still to give on the finished traces."""
        return sum(len(judging.plan.missing) for judging in self.judgings)


def plan_build(settings: config.Config, prompts: PromptSet, retry_failed: bool = False) -> BuildPlan:
    """Find the teacher's id and what its trace store lacks, with `retry_failed` also what failed. Starts nothing.

    A branch of a hub model is pinned to the commit that the id is made of: a push during a long build changes nothing.
    """
    settings = pinned(settings)
    identity = identify_teacher(settings.teacher)
    store = TraceStore(settings.root, identity.teacher_id)
    return BuildPlan(
        settings, prompts, identity, store, plan_traces(settings, prompts, store, retry_failed), retry_failed
    )


def plan_judging(build: BuildPlan, judge: LlmJudge) -> BuildPlan:
    """The build in which a model judges the answers that are there."""
    finished, prompts = build.plan.finished, build.prompts
    own = judges_prompts(build.config, judge, prompts.table)[finished["prompt_row"].to_numpy()]
    split = splitter_of(build.config.teacher, build.identity.source)
    asked = judging_prompts(judge, answers_to(prompts, build.store, finished.filter(pa.array(own)), split))
    return plan_build(judging_job(build.config, judge), asked, build.retry_failed)


def replanned(build: BuildPlan) -> BuildPlan:
    """The build against what the store holds now."""
    return replace(build, plan=plan_traces(build.config, build.prompts, build.store))


def generate_missing(
    build: BuildPlan,
    on_progress: Callable[[GenerationProgress], None],
    *,
    budget: Budget = NO_BUDGET,
    say: Callable[[str], object] = lambda _: None,
    verbose: bool = False,
) -> tuple[BuildPlan, GenerationReport]:
    """Generate and commit what is missing; starts no engine when nothing is.

    Planned again once no other build of this teacher is at work: returned is the build as it then was. `say` takes
    a line for the person who waits.

    Raises:
        TeacherError: no worker can be kept alive; what was committed is kept.
    """
    if len(build.plan.missing) == 0:
        return build, NOTHING_GENERATED
    settings = build.config
    try:
        with teacher_session(settings, build.identity, say, verbose) as pool:
            build = replace(build, plan=plan_traces(settings, build.prompts, build.store, build.retry_failed))
            if len(build.plan.missing) == 0:
                return build, NOTHING_GENERATED
            build.store.remove_leftovers()
            return build, _generate(build, pool, budget, on_progress)
    except Busy as busy:
        return build, replace(NOTHING_GENERATED, paused=str(busy))


def _generate(
    build: BuildPlan, pool: TeacherPool, budget: Budget, on_progress: Callable[[GenerationProgress], None]
) -> GenerationReport:
    """One run, and where `retry_truncated` is set another one for what the first one's `max_tokens` cut."""
    report = pool.run(work_of(build), budget, on_progress)
    again = plan_traces(build.config, build.prompts, build.store)
    if report.paused is not None or len(again.missing) == 0:
        return report
    return report + pool.run(work_of(replace(build, plan=again)), budget.after(report), on_progress)


def work_of(build: BuildPlan) -> Work:
    """What is missing, as the pool of workers takes it; saves the prompts for them."""
    root, missing = Path(build.config.root), build.plan.missing
    as_sampled = sampled_as(build.config, build.prompts.table["source"], "max_tokens")
    own = missing["max_tokens"].to_numpy()  # NaN: as sampled
    return Work(
        missing=missing,
        most_tokens=np.where(np.isnan(own), as_sampled[missing["prompt_row"].to_numpy()], own).astype(np.int64),
        prompt_ids=build.prompts.table["prompt_id"],
        prompts_path=save_prompts(build.prompts, root),
        storage=build.config.storage,
        root=root,
        teacher_id=build.store.teacher_id,
        ingredients=build.identity.ingredients,
    )


def assemble_version(build: BuildPlan, on_progress: Callable[[AssemblyProgress], None]) -> tuple[Manifest, bool]:
    """The version that these inputs and traces give, and whether it was made just now.

    Raises:
        TeacherError: traces are still missing.
        InputError: a benchmark cannot be read, or has changed since the prompts were compared with it.
    """
    with traces_in_use(build.store.folder):
        done = replace(replanned(build), retry_failed=False)
        if len(done.plan.missing):
            raise TeacherError(
                f"{len(done.plan.missing)} of {done.plan.wanted} traces are still missing: run the same command again"
            )
        if done.unjudged:
            raise TeacherError(f"{done.unjudged:,} verdicts of models are still missing: run the same command again")
        if (existing := existing_version(done)) is not None:
            return existing, False
        return assemble(_assembly(done), on_progress), True


def _assembly(build: BuildPlan) -> Assembly:
    """What a version is made of, once nothing is missing."""
    return Assembly(
        config=build.config,
        prompts=build.prompts,
        store=build.store,
        finished=build.plan.finished,
        teacher_id=build.store.teacher_id,
        teacher=build.identity.ingredients,
        tokenizer=build.store.description()["tokenizer"],
        digest=digest_of(build),
        split=splitter_of(build.config.teacher, build.identity.source),
        benchmarks=_benchmarks(build),
        labelling=_labelling(build),
        write_report=partial(_write_report, build),
    )


def plan_traces(settings: config.Config, prompts: PromptSet, store: TraceStore, retry_failed: bool = False) -> Plan:
    """What is wanted, against what the store holds."""
    teacher, sources = settings.teacher, prompts.table["source"]
    retries = Retries(
        max_model_len=teacher.engine.max_model_len,
        max_tokens=teacher.retry_truncated.max_tokens if teacher.retry_truncated else None,
        failed=retry_failed,
        sampled_max_tokens=sampled_as(settings, sources, "max_tokens") if teacher.mode == "generate" else None,
    )
    samples = sampled_as(settings, sources, "samples")
    return make_plan(prompts.table["prompt_id"], samples, store.index(), retries)


def _labelling(build: BuildPlan) -> Labelling | None:
    """How the labels of a teacher that classifies are read."""
    teacher = build.config.teacher
    if teacher.mode != "classify":
        return None
    tokenizer = load_tokenizer(build.identity.source, trust_remote_code=teacher.trust_remote_code)
    return read_labelling(build.config, build.prompts, build.store, build.plan.finished, tokenizer)


def _write_report(build: BuildPlan, folder: Path, manifest: Manifest) -> None:
    """The version's report.html. A page that cannot be drawn costs no version: it says so in its place."""
    teacher, page = build.config.teacher, folder / "report.html"
    tokenizer = load_tokenizer(build.identity.source, trust_remote_code=teacher.trust_remote_code)
    try:
        write_page(Corpus(folder, manifest), page, token_texts(tokenizer))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        why = escape(f"{type(error).__name__}: {error}")
        page.write_text(f"<!doctype html><p>This report could not be drawn ({why}). The version is whole.", "utf-8")


def _benchmarks(build: BuildPlan) -> Benchmarks | None:
    """What traces are compared with, if they are."""
    section = build.config.decontaminate
    return load_screened_by(section, build.prompts.benchmarks) if section.traces == "drop" else None


def digest_of(build: BuildPlan) -> str:
    """The digest of the version that this build's finished traces give."""
    judged = [judging.plan.finished for judging in build.judgings]
    prompts, finished = build.prompts, build.plan.finished
    return corpus_digest(build.config, prompts.digest, build.store.teacher_id, finished, prompts.benchmarks, judged)


def existing_version(build: BuildPlan) -> Manifest | None:
    """The version that this build would give, if nothing is missing and it exists already."""
    if len(build.plan.missing) or build.unjudged:
        return None
    root, name = build.config.root, build.config.name
    version = version_with_digest(root, name, digest_of(build))
    return None if version is None else read_manifest(version_folder(root, name, version))
