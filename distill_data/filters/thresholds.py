"""Thresholds on measures: which traces their content keeps out of a corpus, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from distill_data.filter_config import Filters
from distill_data.filters.flat_text import Traces
from distill_data.filters.language import check_language
from distill_data.filters.measures import MEASURES, Measure, language_measure
from distill_data.records import SOFT_LABEL_FIELDS

_BLOCK_ROWS = 512  # a megabyte of text: what is made of it stays in a core's cache
_SURE = 0.5
_LABELS = {name for name, _ in SOFT_LABEL_FIELDS}

CONTENT_REASONS: dict[str, str] = {
    "too_short": "the completion has fewer tokens than filters.min_tokens",
    "too_long": "the completion has more tokens than filters.max_tokens",
    "leakage": "parts of a chat template or tool call stand in the text",
    "refusal": "the answer begins as a refusal",
    "personal_data": "the text has an e-mail address, telephone, account, card or IP number",
    "repetition": "the text says the same again and again",
    "compressible": "the text compresses as only a loop does",
    "long_paragraph": "a paragraph is longer than filters.max_paragraph_characters",
    "mixed_scripts": "words stand in another script than most of the text",
    "other_language": "the text is more likely in another language than filters.language",
    "code_in_prose": "there is code where the prompt asked for none",
    "low_logprob": "the teacher's mean log-probability is below filters.min_mean_logprob",
    "unlikely_token": "a sampled token's log-probability is below filters.min_logprob",
    "high_entropy": "the teacher's mean entropy is above filters.max_mean_entropy",
}
"""Every reason why content keeps a trace out, with one line for the dataset card, in the order that they are looked at:
what is wrong for any use of a trace comes before what is out of place, and what the teacher said before how surely."""


@dataclass(frozen=True)
class Rule:
    """A trace whose measure is above (or below) the threshold is dropped for this reason; NaN never is."""

    reason: str
    measure: Measure
    threshold: float
    drops: str  # "above" or "below"

    def holds(self, values: np.ndarray) -> np.ndarray:
        """Which of these measured traces are dropped: bool [R]."""
        return values > self.threshold if self.drops == "above" else values < self.threshold


def active(filters: Filters) -> list[Rule]:
    """The rules that are switched on, in the order of CONTENT_REASONS.

    Raises:
        ConfigError: `filters.language` is set and cannot be told.
    """
    said = filters
    limits: list[tuple[str, str, float | None, str]] = [
        ("too_short", "tokens", said.min_tokens, "below"),
        ("too_long", "tokens", said.max_tokens, "above"),
        ("leakage", "leakage", _found(said.leakage), "above"),
        ("refusal", "refusal", _found(said.refusals), "above"),
        ("personal_data", "personal_data", _found(said.personal_data), "above"),
        ("repetition", "repetition", said.max_repetition, "above"),
        ("compressible", "compression", said.max_compression, "above"),
        ("long_paragraph", "longest_paragraph", said.max_paragraph_characters, "above"),
        ("mixed_scripts", "other_script_share", said.max_other_script_share, "above"),
        ("other_language", "language_confidence", None if said.language is None else _SURE, "below"),
        ("code_in_prose", "code_share", said.max_code_share, "above"),
        ("low_logprob", "mean_logprob", said.min_mean_logprob, "below"),
        ("unlikely_token", "least_logprob", said.min_logprob, "below"),
        ("high_entropy", "mean_entropy", said.max_mean_entropy, "above"),
    ]
    known = MEASURES
    if said.language is not None:
        check_language(said.language)
        known = known | {"language_confidence": language_measure(said.language)}
    return [Rule(reason, known[name], limit, drops) for reason, name, limit, drops in limits if limit is not None]


def columns(filters: Filters) -> set[str]:
    """The columns that the active rules read."""
    return {column for rule in active(filters) for column in rule.measure.reads}


def label_measures(filters: Filters) -> list[Measure]:
    """What the active rules measure of soft labels, and of nothing else."""
    return [rule.measure for rule in active(filters) if _LABELS.issuperset(rule.measure.reads)]


def measure_all(table: pa.Table, filters: Filters) -> dict[str, np.ndarray]:
    """What the active rules measure, by name: float32 [rows] each. Memory beside that does not grow with the rows.

    A measure of labels that is a column of the table was measured before.
    """
    before = {measure.name for measure in label_measures(filters)}.intersection(table.column_names)
    known = {name: table[name].to_numpy() for name in before}
    measures = {rule.measure.name: rule.measure for rule in active(filters) if rule.measure.name not in known}
    if not measures:
        return known
    starts = range(0, max(table.num_rows, 1), _BLOCK_ROWS)
    blocks = (Traces(table.slice(start, _BLOCK_ROWS)) for start in starts)
    found = [[measure.of(block) for measure in measures.values()] for block in blocks]
    joined = map(np.concatenate, zip(*found, strict=True))
    return known | dict(zip(measures, joined, strict=True))


def content_reasons(measures: Mapping[str, np.ndarray], filters: Filters) -> pa.StringArray:
    """The first reason that holds for every row, in the order of CONTENT_REASONS, null for a row that is kept.

    `measures` are those of `measure_all` under the same filters. Where no rule is active, there are none, and no rows.
    """
    rules = active(filters)
    rows = len(next(iter(measures.values()), ()))
    first = np.full(rows, len(rules))
    for number, rule in reversed(list(enumerate(rules))):
        first[rule.holds(measures[rule.measure.name])] = number
    reasons = pa.array([rule.reason for rule in rules], pa.string())
    return reasons.take(pa.array(first, pa.int32(), mask=first == len(rules)))


def _found(wanted: bool) -> float | None:
    """The threshold of what is found or not."""
    return _SURE if wanted else None
