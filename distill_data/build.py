"""A build, step by step: who the teacher is, what is missing, generate it, and assemble a version if anything is new.

`flows/build.py` calls these in this order; nothing here knows about orchestration.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill_data import config
from distill_data.corpus.assemble import Assembly, AssemblyProgress, assemble
from distill_data.corpus.digest import corpus_digest
from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.corpus.versions import version_folder, version_with_digest
from distill_data.errors import TeacherError
from distill_data.identity import teacher_id
from distill_data.models import ModelSource, model_fingerprint, resolve_model
from distill_data.planning import Plan, cut_shards, make_plan
from distill_data.prompts import PromptSet, save_prompts
from distill_data.teachers.messages import WorkerJob
from distill_data.teachers.pool import NOTHING_GENERATED, GenerationProgress, GenerationReport, TeacherPool
from distill_data.trace_store import TraceStore
from distill_data.verify import require_safe_scorer


@dataclass(frozen=True)
class BuildPlan:
    """A build before anything is generated."""

    config: config.Config
    prompts: PromptSet
    source: ModelSource
    ingredients: dict[str, Any]
    store: TraceStore
    plan: Plan


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
    load_seconds: float
    engine_seconds: float
    tokens_per_second: float
    soft_label_bytes_per_token: float | None


def teacher_ingredients(teacher: config.Teacher, source: ModelSource) -> dict[str, Any]:
    """Everything that changes what the teacher says, and nothing that does not.

    The model's fingerprint covers its tokenizer and chat template. How many samples are taken, how the text is
    split into thinking and answer, and how the engine runs are left out.
    """
    return {
        "model": model_fingerprint(source),
        "backend": teacher.backend,
        "prompt_format": teacher.prompt_format,
        "system_prompt": teacher.system_prompt,
        "chat_template_kwargs": teacher.chat_template_kwargs,
        "dtype": teacher.dtype,
        "head_dtype": "float32",
        "quantization": teacher.quantization,
        "sampling": teacher.sampling.model_dump(exclude={"samples"}),
        "soft_labels": teacher.soft_labels.model_dump(),
        "logprobs_mode": "raw_logprobs",
    }


def plan_build(settings: config.Config, prompts: PromptSet) -> BuildPlan:
    """Find the teacher's id and what its trace store lacks. Starts nothing.

    A branch of a hub model is pinned to the commit that the id is made of: a push during a long build changes nothing.
    """
    if settings.judge is not None and settings.judge.verifier == "reasoning_gym":
        for prompt_source in settings.prompts:
            if isinstance(prompt_source, config.ReasoningGymPrompts):
                require_safe_scorer(prompt_source)
    source = resolve_model(settings.teacher.model, settings.teacher.revision)
    ingredients = teacher_ingredients(settings.teacher, source)
    source = replace(source, revision=ingredients["model"].get("commit", source.revision))
    store = TraceStore(settings.root, teacher_id(ingredients))
    return BuildPlan(settings, prompts, source, ingredients, store, _plan(settings, prompts, store))


def generate_missing(
    build: BuildPlan, on_progress: Callable[[GenerationProgress], None], verbose: bool = False
) -> GenerationReport:
    """Generate and commit what is missing; starts no engine when nothing is.

    Raises:
        TeacherError: a worker died or failed; what was committed is kept.
    """
    if len(build.plan.missing) == 0:
        return NOTHING_GENERATED
    settings = build.config
    root = Path(settings.root)
    job = WorkerJob(
        teacher=settings.teacher,
        storage=settings.storage,
        source=build.source,
        root=root,
        teacher_id=build.store.teacher_id,
        ingredients=build.ingredients,
        prompts_path=save_prompts(build.prompts, root),
    )
    shards = cut_shards(build.plan.missing, settings.storage.shard_size)
    return TeacherPool(job, shards, on_progress, verbose).run()


def assemble_version(build: BuildPlan, on_progress: Callable[[AssemblyProgress], None]) -> tuple[Manifest, bool]:
    """The version that these inputs and traces give, and whether it was made just now.

    Raises:
        TeacherError: traces are still missing.
    """
    done = replace(build, plan=_plan(build.config, build.prompts, build.store))
    if len(done.plan.missing):
        raise TeacherError(
            f"{len(done.plan.missing)} of {done.plan.wanted} traces are still missing: run the same command again"
        )
    if (existing := existing_version(done)) is not None:
        return existing, False
    job = Assembly(
        config=build.config,
        prompts=build.prompts,
        store=build.store,
        finished=done.plan.finished,
        teacher_id=build.store.teacher_id,
        teacher=build.ingredients,
        tokenizer=build.store.description()["tokenizer"],
        digest=digest_of(done),
    )
    return assemble(job, on_progress), True


def _plan(settings: config.Config, prompts: PromptSet, store: TraceStore) -> Plan:
    teacher = settings.teacher
    return make_plan(prompts.table["prompt_id"], teacher.sampling.samples, store.index(), teacher.engine.max_model_len)


def digest_of(build: BuildPlan) -> str:
    """The digest of the version that this build's finished traces give."""
    return corpus_digest(build.config, build.prompts.digest, build.store.teacher_id, build.plan.finished)


def existing_version(build: BuildPlan) -> Manifest | None:
    """The version that this build would give, if nothing is missing and it exists already."""
    if len(build.plan.missing):
        return None
    root, name = build.config.root, build.config.name
    version = version_with_digest(root, name, digest_of(build))
    return None if version is None else read_manifest(version_folder(root, name, version))


def report_build(build: BuildPlan, generation: GenerationReport, manifest: Manifest, created: bool) -> BuildReport:
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
        load_seconds=round(generation.load_seconds, 2),
        engine_seconds=round(generation.engine_seconds, 2),
        tokens_per_second=round(generation.tokens_per_second, 1),
        soft_label_bytes_per_token=statistics.get("soft_label_bytes_per_token"),
    )
