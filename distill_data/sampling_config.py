"""The section `sampling` of a prompt source: what is sampled otherwise than the teacher does."""

from __future__ import annotations

from typing import Any

from pydantic import NonNegativeInt, PositiveInt, model_validator

from distill_data.section import Section, Temperature, TokenIds, TopP


class SamplingOverrides(Section):
    """What a source samples otherwise than `teacher.sampling`. Part of its prompts' ids, except `samples`."""

    samples: PositiveInt | None = None
    """Traces per prompt of this source."""
    temperature: Temperature | None = None
    """Sampling temperature."""
    top_p: TopP | None = None
    """Nucleus sampling."""
    top_k: NonNegativeInt | None = None
    """Sample from the k likeliest tokens only; 0 is off."""
    max_tokens: PositiveInt | None = None
    """A trace is cut after this many completion tokens."""
    stop_token_ids: TokenIds | None = None
    """Token ids that end a trace, beside EOS, in place of the teacher's."""

    @model_validator(mode="after")
    def _something_is_set(self) -> SamplingOverrides:
        if not self.model_dump(exclude_none=True):
            raise ValueError(f"sets nothing: give one of {', '.join(type(self).model_fields)}, or leave sampling: out")
        return self

    def of_a_trace(self) -> dict[str, Any] | None:
        """What is overridden for every single trace, so without `samples`; None where that is nothing."""
        return self.model_dump(exclude_none=True, exclude={"samples"}) or None
