"""The config's sections `keep` and `mix`: which of a prompt's traces enter the corpus, and how many of each source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from distill_data.section import Section

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Prefer = Literal["first", "best", "shortest", "longest", "likeliest"]


class Keep(Section):
    """Which traces of a prompt enter the corpus."""

    # At their defaults all but the first are left out of a version's digest: older versions keep theirs.
    passed_only: bool = False
    """Keep only traces that passed the judge (rejection sampling). Sources without a judge are not asked."""
    min_pass_rate: Annotated[Share | None, Field(exclude_if=lambda share: share is None)] = None
    """Drop prompts of whose judged traces a smaller share passed: too hard for this teacher, or wrongly labelled."""
    max_pass_rate: Annotated[Share | None, Field(exclude_if=lambda share: share is None)] = None
    """Drop prompts of whose judged traces a larger share passed: too easy to learn from. 0.99 drops those that the
    teacher always solves."""
    self_consistency: Annotated[Share | None, Field(exclude_if=lambda share: share is None)] = None
    """For prompts without a reference: keep the traces whose final answer most samples of the prompt give, where at
    least this share of them does."""
    per_prompt: Annotated[PositiveInt | None, Field(exclude_if=lambda count: count is None)] = None
    """Keep at most this many traces of a prompt, by `prefer`."""
    prefer: Annotated[Prefer, Field(exclude_if=lambda prefer: prefer == "first")] = "first"
    """Which traces `per_prompt` keeps: `first` by sample index, `best` by score, `shortest` or `longest` by tokens,
    `likeliest` by mean log-probability. Of equals the first."""

    @model_validator(mode="after")
    def _a_window_has_room(self) -> Keep:
        low, high = self.min_pass_rate, self.max_pass_rate
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_pass_rate is {low:g} and max_pass_rate {high:g}: nothing is between them, swap them")
        return self

    @model_validator(mode="after")
    def _a_preference_needs_a_count(self) -> Keep:
        if self.prefer != "first" and self.per_prompt is None:
            raise ValueError(f"prefer is {self.prefer} and per_prompt is not set: say how many with per_prompt:")
        return self

    @property
    def needs_judge(self) -> list[str]:
        """The keys that are set and mean nothing without verdicts."""
        wanted = {
            "passed_only": self.passed_only,
            "min_pass_rate": self.min_pass_rate is not None,
            "max_pass_rate": self.max_pass_rate is not None,
            "prefer": self.prefer == "best",
        }
        return [name for name, on in wanted.items() if on]


class Mix(Section):
    """How many rows of every source a version has. Left out: all that are kept."""

    weights: dict[str, PositiveFloat] = {}
    """By source, its share of the rows beside the others named here: `{math: 3, general: 1}` gives three to one, as
    many as the scarcest of them allows. Sources that are not named keep all of theirs."""
    max_rows: dict[str, PositiveInt] = {}
    """By source, the most rows that it may have."""
    rows: PositiveInt | None = None
    """The most rows of the version."""
    seed: int = 0
    """Another seed keeps other prompts' rows."""

    @model_validator(mode="after")
    def _something_is_set(self) -> Mix:
        if not self.weights and not self.max_rows and self.rows is None:
            raise ValueError("sets nothing: give weights:, max_rows: or rows:, or leave mix: out")
        return self
