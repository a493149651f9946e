"""The section `compare`: the same student trained several ways, to see what the teacher's distributions bought."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from distill_data.section import Section

Arm = Literal["soft_labels", "text", "reference"]


class Compare(Section):
    """Which ways, how often, how closely watched. Never part of a corpus version."""

    arms: Annotated[list[Arm], Field(min_length=2)] = ["soft_labels", "text", "reference"]
    """What the student learns from: `soft_labels`, as `student.train.loss` says; `text`, cross-entropy on what the
    teacher said; `reference`, cross-entropy on the sources' own references, for as many tokens. `soft_labels` is what
    the others are compared with."""
    seeds: Annotated[list[int], Field(min_length=1)] = [0, 1, 2]
    """Every arm is trained once with each: initial weights are the same across arms, and for `soft_labels` and `text`
    the order of rows. References have other lengths: `length_grouped` orders them otherwise, and `max_length` may leave
    out others."""
    looks: PositiveInt = 24
    """How often a training is measured on the held-out traces, at even distances."""

    @property
    def is_default(self) -> bool:
        """Whether nothing here differs from its default."""
        return self == Compare()

    @field_validator("arms")
    @classmethod
    def _soft_labels_are_there(cls, arms: list[Arm]) -> list[Arm]:
        if "soft_labels" not in arms or len(set(arms)) < len(arms):
            raise ValueError(f"{arms} is no set of arms with soft_labels: write [soft_labels, text]")
        return arms

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} names a seed twice, which trains the same student again: leave one out")
        return seeds
