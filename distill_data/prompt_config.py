"""The sections of prompt sources."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from distill_data.judge_config import Judge
from distill_data.license_config import License
from distill_data.sampling_config import SamplingOverrides
from distill_data.section import Mode, Options, Section

# Left out of a version's digest and a manifest's config where it is not set: older versions keep theirs.
_UNLESS_NONE = Field(exclude_if=lambda value: value is None)
SourceJudge = Annotated[Judge | None, _UNLESS_NONE]
_SAMPLES_NOTHING = "has sampling:, and nothing is sampled: leave it out"
SystemPrompt = Annotated[str | None, _UNLESS_NONE]
SourceLicense = Annotated[License | None, _UNLESS_NONE]


class ReasoningGymPrompts(Section):
    """Prompts made by a reasoning_gym task: endless, checkable, reproducible from a seed."""

    source: Literal["reasoning_gym"]
    """Which kind of source this is."""
    task: str
    """Name of the reasoning_gym dataset, such as `chain_sum`."""
    size: PositiveInt
    """How many prompts to make."""
    seed: int = 0
    """Seed of the task's generator; the same seed and options give the same prompts."""
    options: Options = {}
    """Options of the task, as reasoning_gym names them."""
    name: str | None = None
    """Name of this source in corpora and reports; `task` when left out."""
    sampling: SamplingOverrides | None = None
    """What is sampled otherwise than `teacher.sampling` for these prompts; changing it generates only them again."""
    system_prompt: SystemPrompt = None
    """System message of these prompts, in place of `teacher.system_prompt`; a prompt that brings one keeps its own."""
    judge: SourceJudge = None
    """What scores the answers to these prompts, in place of the config's `judge`."""
    license: SourceLicense = None
    """Licence of these prompts, as the hub writes it: `mit`, `cc-by-4.0`, …; the dataset card names it."""

    @property
    def label(self) -> str:
        """The name that rows of this source carry."""
        return self.name or self.task

    def why_not(self, mode: Mode) -> str | None:
        """Why a teacher in this mode cannot work through these prompts; None where it can."""
        if mode == "score":
            return "is reasoning_gym, which has no completions: use source: dataset"
        return _SAMPLES_NOTHING if mode == "classify" and self.sampling else None


class DatasetPrompts(Section):
    """Prompts from whatever `datasets.load_dataset` reads: a hub id, a folder, Parquet, JSON lines, CSV."""

    source: Literal["dataset"]
    """Which kind of source this is."""
    path: str
    """Hub id, local folder, or local `.parquet`, `.jsonl`, `.json`, `.csv` or `.txt` file (a row a line, in a column
    `text`); `package://PACKAGE/FILE` for such a file in an installed Python package."""
    subset: str | None = None
    """Configuration of a hub dataset (`load_dataset`'s `name`)."""
    split: str = "train"
    """Split to read."""
    revision: str | None = None
    """Revision of a hub dataset."""
    prompt: str | None = None
    """Text column that holds the prompt; it becomes one user message."""
    messages: str | None = None
    """Chat column: a list of `{role, content}`. In `teacher.mode: score` without `completion:`, its last message, the
    assistant's, is the completion."""
    completion: str | None = None
    """Text column with the completion that the teacher scores, in `teacher.mode: score`."""
    reference: str | None = None
    """Column with the right answer, for verifiers that need one, and for classifiers' accuracy."""
    reference_text: Annotated[str | None, _UNLESS_NONE] = None
    """The right answer to every row, in place of a column: the label, where each label has a file of its own."""
    metadata: Annotated[list[str], Field(exclude_if=lambda columns: not columns)] = []
    """Columns that are kept in `metadata` for verifiers: the tests of a program, the choices, a schema."""
    limit: PositiveInt | None = None
    """Take at most this many rows, from the top."""
    name: str | None = None
    """Name of this source in corpora and reports; the last part of `path` when left out."""
    sampling: SamplingOverrides | None = None
    """What is sampled otherwise than `teacher.sampling` for these prompts; changing it generates only them again."""
    system_prompt: SystemPrompt = None
    """System message of these prompts, in place of `teacher.system_prompt`; a prompt that brings one keeps its own."""
    judge: SourceJudge = None
    """What scores the answers to these prompts, in place of the config's `judge`."""
    license: SourceLicense = None
    """Licence of these prompts, as the hub writes it: `mit`, `cc-by-4.0`, …; the dataset card names it."""

    @model_validator(mode="after")
    def _exactly_one_prompt_column(self) -> DatasetPrompts:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError(
                f"needs exactly one of prompt: (a text column) and messages: (a chat column), "
                f"got prompt={self.prompt!r} and messages={self.messages!r}"
            )
        return self

    @model_validator(mode="after")
    def _one_reference(self) -> DatasetPrompts:
        if self.reference is not None and self.reference_text is not None:
            raise ValueError(
                f"has reference: {self.reference!r}, a column, and reference_text: {self.reference_text!r}: leave one "
                "of them out"
            )
        return self

    @model_validator(mode="after")
    def _row_is_taken(self) -> DatasetPrompts:
        if "row" in self.metadata:
            raise ValueError("metadata: names the column 'row', which is where a prompt's number stands: rename it")
        return self

    @property
    def label(self) -> str:
        """The name that rows of this source carry."""
        return self.name or Path(self.path).name.split(".")[0]

    @property
    def columns(self) -> list[str]:
        """The columns that are read, each once."""
        named = (self.prompt, self.messages, self.completion, self.reference, *self.metadata)
        return list(dict.fromkeys(name for name in named if name is not None))

    def why_not(self, mode: Mode) -> str | None:
        """Why a teacher in this mode cannot work through these prompts; None where it can."""
        if mode != "score" and self.completion is not None:
            return f"has completion: {self.completion!r}: leave it out, or set mode: score"
        if mode == "generate":
            return None
        if mode == "score" and self.completion is None and self.messages is None:
            return "has no completions: name their column with completion:, or a chat column with messages:"
        return _SAMPLES_NOTHING if self.sampling else None


PromptSource = Annotated[ReasoningGymPrompts | DatasetPrompts, Field(discriminator="source")]
