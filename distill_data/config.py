"""The config: a frozen tree of pydantic models.

Every field carries its documentation below it; README's reference is generated from here.
Validators only look at values: no file is opened and no model is loaded here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from distill_data.compare_config import Compare
from distill_data.dedup_config import Decontaminate, Deduplicate
from distill_data.filter_config import Filters
from distill_data.gates_config import Gates
from distill_data.judge_config import Judge
from distill_data.keep_config import Keep, Mix
from distill_data.prompt_config import DatasetPrompts, PromptSource
from distill_data.publish_config import Publish
from distill_data.rounds_config import Rounds
from distill_data.schedule_config import Schedule
from distill_data.section import Fraction, Section, require_own_labels
from distill_data.student_config import Student
from distill_data.teacher_config import Sampling, Teacher

_UNLESS_DEFAULT = Field(exclude_if=lambda section: section.is_default)
_UNLESS_LEFT_OUT = Field(exclude_if=lambda section: section is None)
NOT_OF_A_VERSION = frozenset({"root", "gates", "rounds", "schedule"})
"""Keys that say what happens around a version: no manifest has them, and changing them gives no new version. Where a
version is published is no part of its digest either, and in its manifest for `distill-data publish` to read."""
CORPUS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")


class Validation(Section):
    """Held-out rows. Split by prompt, never by sample, by a hash of the prompt."""

    fraction: Fraction = 0.1
    """Share of prompts held out; when above 0, at least one prompt and never all of them."""
    seed: int = 0
    """Another seed holds out other prompts."""


class Storage(Section):
    """How files are written: never part of an id."""

    shard_size: PositiveInt = 256
    """Traces per shard of work."""
    flush_rows: PositiveInt = 256
    """A worker commits a part after this many finished traces …"""
    flush_seconds: PositiveFloat = 30.0
    """… or after this many seconds. A hard kill costs at most what finished since."""
    when_busy: Literal["wait", "leave"] = "wait"
    """What a build does while another one of the same teacher is at work: wait for it, or leave and say so."""
    rows_per_file: PositiveInt = 50_000
    """Rows per Parquet file of a corpus version."""


class Config(Section):
    """A whole job. Sections that are left out are not done."""

    name: str
    """Name of the corpus; its versions are `NAME@v1`, `NAME@v2`, …"""
    root: str = "./data"
    """Folder that holds traces, corpora and students; relative to where the command runs."""
    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """Where prompts come from, in order."""
    teacher: Teacher
    """Who answers."""
    deduplicate: Annotated[Deduplicate, _UNLESS_DEFAULT] = Deduplicate()
    """Prompts, and answers to one prompt, that are nearly the same."""
    decontaminate: Annotated[Decontaminate, _UNLESS_DEFAULT] = Decontaminate()
    """Benchmarks whose texts must not be in the corpus."""
    judge: Judge | None = None
    """How answers are scored; left out: only those of sources with a `judge:` of their own are."""
    keep: Keep = Keep()
    """Which answers are kept."""
    mix: Annotated[Mix | None, _UNLESS_LEFT_OUT] = None
    """How many rows of every source there are."""
    filters: Filters = Filters()
    """Which traces are dropped, and why."""
    validation: Validation = Validation()
    """What is held out."""
    gates: Annotated[Gates | None, _UNLESS_LEFT_OUT] = None
    """What a version must be like to be promoted; left out: every version is."""
    student: Student | None = None
    """Who learns."""
    rounds: Annotated[Rounds | None, _UNLESS_LEFT_OUT] = None
    """How often the student then learns from its own answers, scored by the teacher; a number says only how often."""
    publish: Annotated[Publish | None, _UNLESS_LEFT_OUT] = None
    """Where versions are published."""
    compare: Annotated[Compare, _UNLESS_DEFAULT] = Compare()
    """What `distill-data compare` trains."""
    storage: Storage = Storage()
    """How files are written."""
    schedule: Annotated[Schedule | None, _UNLESS_LEFT_OUT] = None
    """When `distill-data serve` runs this config."""

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if not CORPUS_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no corpus name: use letters, digits, '.', '_' and '-'")
        return name

    @field_validator("root")
    @classmethod
    def _root_is_local(cls, root: str) -> str:
        if "://" in root:
            raise ValueError(f"{root!r} is a URL, and this version writes to local folders: give a path")
        return root

    @model_validator(mode="after")
    def _source_names_are_unique(self) -> Config:
        require_own_labels([source.label for source in self.prompts], "prompt sources")
        return self

    @model_validator(mode="after")
    def _greedy_sources_have_one_sample(self) -> Config:
        for source in self.prompts:
            for sampling in self._samplings_of(source):
                if sampling.temperature == 0.0 and sampling.samples > 1:
                    raise ValueError(
                        f"source {source.label!r} is sampled at temperature {sampling.temperature:g}, which gives the "
                        f"same trace {sampling.samples} times: give it sampling: {{samples: 1}} or raise its "
                        "temperature"
                    )
        return self

    @model_validator(mode="after")
    def _a_retry_has_more_room_for_every_source(self) -> Config:
        retry = self.teacher.retry_truncated
        for source in self.prompts:
            if retry is not None and retry.max_tokens <= (most := self.sampling_of(source).max_tokens):
                raise ValueError(
                    f"teacher.retry_truncated.max_tokens is {retry.max_tokens} and source {source.label!r} has "
                    f"sampling.max_tokens {most}: make the first the larger one"
                )
        return self

    @model_validator(mode="after")
    def _completions_are_there_to_be_scored(self) -> Config:
        for source in self.prompts:
            if (problem := source.why_not(self.teacher.mode)) is not None:
                raise ValueError(f"teacher.mode is {self.teacher.mode} and source {source.label!r} {problem}")
        return self

    @model_validator(mode="after")
    def _labels_are_for_classifiers(self) -> Config:
        task, mode = "" if self.student is None else self.student.task, self.teacher.mode
        if task == "language_model" and mode == "classify":
            raise ValueError(
                "teacher.mode is classify, which no language model learns from: set student.task: classification"
            )
        if task == "classification" and mode != "classify":
            raise ValueError(f"student.task is classification and teacher.mode {mode}: set teacher.mode: classify")
        return self

    @model_validator(mode="after")
    def _labels_are_no_text_to_filter(self) -> Config:
        kept = Filters.model_fields
        measured = [name for name in kept if getattr(self.filters, name) not in (None, False, kept[name].default)]
        if measured and self.teacher.mode == "classify":
            raise ValueError(
                f"filters.{measured[0]} looks at what a teacher writes and teacher.mode is classify: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_schedule_trains_a_student(self) -> Config:
        if self.schedule is not None and self.schedule.train and self.student is None:
            raise ValueError("schedule.train is true and there is no student: add one, or set schedule.train: false")
        return self

    @model_validator(mode="after")
    def _rounds_can_be_played(self) -> Config:
        if self.rounds is None:
            return self
        if (problem := self.rounds.why_not(self.teacher, self.student)) is not None:
            raise ValueError(f"rounds: {problem}")
        if self.validation.fraction == 0.0:
            raise ValueError("rounds: are measured on held-out rows, and validation.fraction is 0: set it above 0")
        if not CORPUS_NAME.fullmatch(f"{self.name}-rounds"):
            raise ValueError(f"rounds: are versions of a corpus {self.name}-rounds, which is too long: shorten name:")
        return self

    @model_validator(mode="after")
    def _text_prompts_have_no_roles(self) -> Config:
        for source in self.prompts:
            if self.teacher.prompt_format == "text" and isinstance(source, DatasetPrompts) and source.messages:
                raise ValueError(
                    f"teacher.prompt_format is text and source {source.label!r} has a chat column, messages: "
                    f"{source.messages!r}: name a text column with prompt:"
                )
            if self.teacher.prompt_format == "text" and source.system_prompt is not None:
                raise ValueError(
                    f"teacher.prompt_format is text, which has no place for the system_prompt of source "
                    f"{source.label!r}: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _a_mix_names_sources(self) -> Config:
        labels = [source.label for source in self.prompts]
        named = [] if self.mix is None else [*self.mix.weights, *self.mix.max_rows]
        if unknown := [name for name in named if name not in labels]:
            raise ValueError(f"mix: names {unknown[0]!r}, which is no source: use {', '.join(labels)}")
        return self

    @model_validator(mode="after")
    def _drawn_labels_have_one_objective(self) -> Config:
        objective = "forward_kl" if self.student is None else self.student.train.loss.objective
        if objective not in ("forward_kl", "text") and self.teacher.soft_labels.kind == "sampled":
            raise ValueError(
                f"teacher.soft_labels.kind is sampled and student.train.loss.objective {objective}, which drawn tokens "
                "do not estimate: set objective: forward_kl or kind: support"
            )
        return self

    @model_validator(mode="after")
    def _drawn_labels_have_no_entropy(self) -> Config:
        if self.filters.max_mean_entropy is not None and self.teacher.soft_labels.kind == "sampled":
            raise ValueError(
                f"filters.max_mean_entropy is {self.filters.max_mean_entropy:g} and teacher.soft_labels.kind sampled, "
                "of which a trace's entropy cannot be told: leave the filter out, or set kind: support"
            )
        return self

    @model_validator(mode="after")
    def _models_are_sampled_often_enough(self) -> Config:
        evaluate = None if self.student is None else self.student.evaluate
        if evaluate is None or not evaluate.generate:
            return self
        samples = evaluate.samples or self.teacher.sampling.samples
        if too_many := [k for k in evaluate.k or [] if k > samples]:
            raise ValueError(
                f"student.evaluate.k has {too_many[0]} and a prompt is answered {samples} times: raise "
                "student.evaluate.samples, or lower k"
            )
        if (
            evaluate.samples
            and evaluate.samples > 1
            and any(self.sampling_of(one).temperature == 0.0 for one in self.prompts)
        ):
            raise ValueError(
                f"student.evaluate.samples is {samples} and a source is sampled at temperature 0, which gives the same "
                "answer every time: set samples: 1, or raise the temperature"
            )
        return self

    @model_validator(mode="after")
    def _some_rules_need_a_judge(self) -> Config:
        judged = any(self.judge_of(source) is not None for source in self.prompts)
        if (keys := self.keep.needs_judge) and not judged:
            value = getattr(self.keep, keys[0])
            shown = str(value).lower() if isinstance(value, bool) else value
            raise ValueError(f"keep.{keys[0]} is {shown} and there is no judge: add a judge: section")
        return self

    @model_validator(mode="after")
    def _gates_can_be_looked_at(self) -> Config:
        gates = self.gates or Gates.model_construct()
        if gates.min_pass_rate is not None and not self.judges:
            raise ValueError(
                f"gates.min_pass_rate is {gates.min_pass_rate:g} and there is no judge: add a judge: section"
            )
        if gates.zero_contamination and not self.decontaminate.benchmarks:
            raise ValueError(
                "gates.zero_contamination is true and there is no benchmark: name some under decontaminate.benchmarks"
            )
        return self

    @model_validator(mode="after")
    def _verifier_covers_its_sources(self) -> Config:
        for source in self.prompts:
            judge = self.judge_of(source)
            if judge is None or not judge.needs_reference or not isinstance(source, DatasetPrompts):
                continue
            if source.reference is None and source.reference_text is None:
                raise ValueError(f"source {source.label!r} has no reference: column for the judge to compare with")
        return self

    @property
    def of_a_version(self) -> dict[str, Any]:
        """What a version's manifest says of this config: all that describes the version, and nothing around it."""
        return self.model_dump(mode="json", exclude=set(NOT_OF_A_VERSION))

    def judge_of(self, source: PromptSource) -> Judge | None:
        """What scores the answers to a source's prompts."""
        return source.judge or self.judge

    @property
    def judges(self) -> list[Judge]:
        """All judges, each once."""
        found = [self.judge_of(source) for source in self.prompts]
        return list({repr(judge): judge for judge in found if judge is not None}.values())

    def sampling_of(self, source: PromptSource) -> Sampling:
        """How a source's prompts are sampled."""
        return self._samplings_of(source)[0]

    def _samplings_of(self, source: PromptSource) -> list[Sampling]:
        """How the teacher samples a source's prompts, and in rounds the student."""
        overrides = source.sampling.model_dump(exclude_none=True) if source.sampling else None
        given = [self.teacher.sampling, *([] if self.rounds is None else [self.rounds.sampling])]
        return [sampling.with_overrides(overrides) for sampling in given]
