"""Every measure of a trace: a pure function from a table of traces to one number a row, NaN where it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill_data.filters.code_lines import code_share
from distill_data.filters.flat_text import Traces
from distill_data.filters.label_measures import least_logprob, mean_entropy, mean_logprob, tokens
from distill_data.filters.language import language_confidence
from distill_data.filters.patterns import leakage, refusal
from distill_data.filters.personal_data import personal_data
from distill_data.filters.scripts import other_script_share
from distill_data.filters.text_shape import compression, longest_paragraph, repetition


@dataclass(frozen=True)
class Measure:
    """A number of every trace.

    `of` takes traces with the columns of `reads` (text `completion`, `answer` and `prompt`, the last user message;
    int32 `completion_tokens`; float32 `mean_logprob`; lists `sampled_logprobs` (float32), `support_counts` (uint8) and
    `support_logprobs` (float16)) and gives float32 [rows].
    """

    name: str
    reads: tuple[str, ...]
    of: Callable[[Traces], np.ndarray]
    unit: str


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure("tokens", ("completion_tokens",), tokens, "tokens"),
        Measure("longest_paragraph", ("completion",), longest_paragraph, "characters"),
        Measure("repetition", ("completion",), repetition, "share of runs of 10 words"),
        Measure("compression", ("completion",), compression, "bytes by compressed bytes"),
        Measure("other_script_share", ("completion",), other_script_share, "share of words"),
        Measure("code_share", ("completion", "prompt"), code_share, "share of bytes"),
        Measure("refusal", ("answer",), refusal, "0 or 1"),
        Measure("leakage", ("completion",), leakage, "0 or 1"),
        Measure("personal_data", ("completion",), personal_data, "0 or 1"),
        Measure("mean_logprob", ("mean_logprob",), mean_logprob, "nats"),
        Measure("least_logprob", ("sampled_logprobs",), least_logprob, "nats"),
        Measure("mean_entropy", ("support_counts", "support_logprobs"), mean_entropy, "nats"),
    )
}
"""By name; how likely the expected language is depends on the config, see `language_measure`."""


def language_measure(codes: list[str]) -> Measure:
    """How sure it is that a completion is in one of these languages (ISO 639-1)."""
    return Measure(
        "language_confidence", ("completion",), lambda traces: language_confidence(traces, codes), "confidence, 0 to 1"
    )
