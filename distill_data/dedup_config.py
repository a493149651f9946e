"""The sections `deduplicate` and `decontaminate`: which prompts and answers are too much like others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from distill_data.section import Section, require_own_labels

CORPUS_VERSION = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}@(v[1-9][0-9]*|(?!v[0-9]*\Z)[A-Za-z][A-Za-z0-9_.-]{0,63})"  # a version, or a tag
)
Similarity = Annotated[float, Field(gt=0.0, le=1.0)]


class _OnlyWhatIsSet(Section):
    """Fields at their defaults are in no dump, and so in no digest: what a new field does not change stays the same."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        return {name: value for name, value in dump(self).items() if getattr(self, name) != fields[name].default}

    @property
    def is_default(self) -> bool:
        """Whether this section is as if it were left out."""
        return not self.model_dump()


class Deduplicate(_OnlyWhatIsSet):
    """Prompts, and answers to one prompt, that are nearly the same: n-grams in common among all n-grams (Jaccard)."""

    prompts: Literal["off", "drop", "group"] = "off"
    """What happens to prompts that are nearly the same. `drop`: the first of them stays and the others are dropped.
    `group`: all stay, and all are on the same side of the held-out split."""
    prompt_similarity: Similarity = 0.8
    """Prompts are nearly the same from this Jaccard similarity on (above 0, to 1)."""
    samples: Literal["off", "drop"] = "off"
    """What happens to answers to one prompt that are nearly the same. `drop`: the first of them stays."""
    sample_similarity: Similarity = 0.8
    """Answers are nearly the same from this Jaccard similarity on (above 0, to 1)."""
    against: list[str] = []
    """Other corpora, `NAME@vN` or `NAME@TAG`, the version that the tag names when the build begins: prompts nearly the
    same as one of theirs are dropped, also where `prompts` is off."""
    ngram: PositiveInt = 5
    """Words of an n-gram, characters in scripts without spaces; a shorter text is compared as a whole."""

    @field_validator("against")
    @classmethod
    def _are_versions(cls, against: list[str]) -> list[str]:
        for reference in against:
            if not CORPUS_VERSION.fullmatch(reference):
                raise ValueError(
                    f"{reference!r} is no version of a corpus: write NAME@vN or NAME@TAG, such as arithmetic@v1 "
                    "(without it would be another one after the next build)"
                )
        if twice := sorted({name for name in against if against.count(name) > 1}):
            raise ValueError(f"{twice[0]!r} is named twice: remove one")
        return against


class BenchmarkSource(_OnlyWhatIsSet):
    """A benchmark whose texts must not be in a corpus: what `datasets.load_dataset` reads, or a local file."""

    path: str
    """Hub id, local folder, or local `.parquet`, `.jsonl`, `.json`, `.csv` file."""
    text: Annotated[list[str], Field(min_length=1)]
    """Text columns to compare prompts with, each by itself."""
    answer: str | None = None
    """Column with the answer or its worked solution; compared where `decontaminate.answers` is true."""
    subset: str | None = None
    """Configuration of a hub dataset (`load_dataset`'s `name`)."""
    split: str = "train"
    """Split to read; most benchmarks have `test`."""
    revision: str | None = None
    """Revision of a hub dataset."""
    name: str | None = None
    """Name of this benchmark in reports; the last part of `path` when left out."""

    @property
    def label(self) -> str:
        """The name that drop details give."""
        return self.name or Path(self.path).name.split(".")[0]

    @field_validator("text")
    @classmethod
    def _columns_are_named_once(cls, text: list[str]) -> list[str]:
        if twice := sorted({name for name in text if text.count(name) > 1}):
            raise ValueError(f"column {twice[0]!r} is named twice: remove one")
        return text


class Decontaminate(_OnlyWhatIsSet):
    """Prompts with an n-gram of a benchmark are dropped: GPT-3's 13 words (Brown et al. 2020, appendix C)."""

    benchmarks: list[BenchmarkSource] = []
    """The benchmarks; none: nothing is compared."""
    ngram: PositiveInt = 13
    """Words of an n-gram, characters in scripts without spaces; a shorter text of a benchmark counts only where it is
    the whole prompt."""
    max_overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """A prompt stays with at most this share of its n-grams in one benchmark; at 0, one n-gram is too much."""
    common: PositiveInt = 10
    """An n-gram in more texts of one benchmark than this is its template, and not compared."""
    answers: bool = False
    """Compare with the benchmarks' answers too, where they name `answer:`."""
    traces: Literal["keep", "drop"] = "keep"
    """What happens to traces that recite a benchmark, in thinking or answer. `drop`: those with an n-gram of one are
    dropped as `recited_benchmark`; shorter texts of a benchmark do not count."""
    max_trace_ngrams: NonNegativeInt = 0
    """A trace stays with at most this many n-grams of one benchmark; at 0, one is too much."""

    @model_validator(mode="after")
    def _benchmarks_have_names_of_their_own(self) -> Decontaminate:
        require_own_labels([benchmark.label for benchmark in self.benchmarks], "benchmarks")
        return self

    @model_validator(mode="after")
    def _what_is_compared_is_there(self) -> Decontaminate:
        if self.traces == "drop" and not self.benchmarks:
            raise ValueError("traces is drop and there is no benchmark to compare them with: name benchmarks:")
        if self.answers and not any(benchmark.answer for benchmark in self.benchmarks):
            named = ", ".join(repr(benchmark.label) for benchmark in self.benchmarks) or "there is none"
            raise ValueError(f"answers is true and no benchmark ({named}) has answer:, a column: name it, or set false")
        return self
