"""The section `gates`: what a version must be like to be promoted."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt, field_validator, model_validator

from distill_data.filter_config import Share
from distill_data.section import Section

# The keys of filters.DROP_REASONS, which this module is below of; a test holds them together.
REASONS = (
    "near_duplicate_prompt", "seen_in_other_corpus", "contaminated", "empty_prompt", "empty_completion",
    "duplicate_prompt", "prompt_too_long", "token_out_of_vocabulary", "nonfinite_logprobs", "request_failed",
    "engine_died", "context_overflow", "truncated", "unfinished_thinking", "missing_answer", "too_short",
    "too_long", "leakage", "refusal", "personal_data", "repetition", "compressible", "long_paragraph",
    "mixed_scripts", "other_language", "code_in_prose", "low_logprob", "unlikely_token", "high_entropy",
    "verifier_error", "failed_verifier", "near_duplicate_sample", "too_hard", "too_easy", "minority_answer",
    "no_majority", "not_selected", "not_in_mix", "recited_benchmark", "content_free",
)  # fmt: skip


class Gates(Section):
    """What a version must be like to be promoted: to get the tag `stable`, to be published and trained on.

    A version that fails is made all the same, and stays. Gates are no part of a version or its digest.
    """

    min_rows: PositiveInt | None = None
    """Fewest rows, train and validation together."""
    min_pass_rate: Share | None = None
    """Smallest share of the judged traces that passed."""
    max_dropped: dict[str, Share] = {}
    """By drop reason, the largest share of all rows, kept and rejected, that it may have: `{truncated: 0.05}`."""
    max_length_drift: PositiveFloat | None = None
    """How far the mean completion length may be from that of the version promoted before, as a share of it: 0.2 allows
    a fifth more or less."""
    max_logprob_drift: PositiveFloat | None = None
    """How far the mean log-probability of sampled tokens may be from that of the version promoted before, in nats per
    token. Its negative estimates the teacher's entropy."""
    zero_contamination: bool = False
    """No row, neither what is asked nor what the teacher says, has an n-gram of a benchmark of `decontaminate`. The
    version's own rows are looked at, whatever `decontaminate.max_overlap` let in."""

    @field_validator("max_dropped")
    @classmethod
    def _reasons_are_known(cls, max_dropped: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(max_dropped) - set(REASONS)):
            raise ValueError(f"{unknown[0]!r} is no drop reason: use one of {', '.join(REASONS)}")
        return max_dropped

    @model_validator(mode="after")
    def _something_is_set(self) -> Gates:
        if self == type(self).model_construct():
            raise ValueError("asks for nothing: give min_rows: or another gate, or leave gates: out")
        return self

    @property
    def compare(self) -> bool:
        """Whether a version is compared with the one that was promoted before."""
        return self.max_length_drift is not None or self.max_logprob_drift is not None
