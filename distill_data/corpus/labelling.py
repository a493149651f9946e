"""Distributions over labels, from the log-probabilities that a teacher in mode `classify` gave their words.

The store has what the teacher says, token by token. What is made of it here, once a version is assembled, costs no
teacher: another calibration is another version of the same traces.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.corpus.manifest import LabelFacts, Prior
from distill_data.errors import CorpusError
from distill_data.label_distributions import label_prior, label_probabilities, label_scores
from distill_data.prompts import PromptSet
from distill_data.prompts.content_free import is_content_free
from distill_data.reasoning import Split
from distill_data.records import LABEL_PROBABILITIES
from distill_data.teachers.label_tokens import label_token_ids
from distill_data.trace_store import TraceStore


@dataclass(frozen=True)
class Labelling:
    """The labels of a version; `content_free` says which prompts (bool [prompts]) only calibrate, and `priors` what the
    teacher says of these under each system prompt of a source, None for those without one: float64 [L].
    """

    names: list[str]
    token_ids: list[list[int]]
    content_free: np.ndarray
    priors: dict[str | None, np.ndarray]

    @property
    def facts(self) -> LabelFacts:
        """What a manifest says of it."""
        inputs = int(self.content_free.sum())
        each = inputs // max(1, len(self.priors))
        priors = [
            Prior(system_prompt=system, inputs=each, probabilities=dict(zip(self.names, prior.tolist(), strict=True)))
            for system, prior in self.priors.items()
        ]
        return LabelFacts(token_ids=dict(zip(self.names, self.token_ids, strict=True)), priors=priors)

    def probabilities(self, part: pa.Table, prompts: pa.Table) -> np.ndarray:
        """The distribution of every row, calibrated where it is to be: float64 [N, L], NaN where the teacher failed.

        Args:
            part: `error` and `sampled_logprobs` of the rows, as in PART_SCHEMA.
            prompts: their prompts, rows of PROMPT_SCHEMA.

        Raises:
            CorpusError: a prompt's own system message was not calibrated for.
        """
        there = pc.is_null(part["error"]).to_numpy()
        found = np.full((len(part), len(self.names)), np.nan)
        prior = self._priors_of(prompts.filter(pa.array(there))) if self.priors else None
        found[there] = label_probabilities(_scores(part, there, self.token_ids), prior)
        return found

    def answers(self, probabilities: np.ndarray) -> list[Split]:
        """The likeliest label of every row as its answer; nothing where the teacher failed."""
        best = np.nan_to_num(probabilities).argmax(axis=1)
        failed = np.isnan(probabilities[:, 0])
        return [Split(None, "" if bad else self.names[at], True) for at, bad in zip(best, failed, strict=True)]

    def column(self, probabilities: np.ndarray) -> pa.Array:
        """Rows of `label_probabilities`, every one with all labels in the config's order."""
        labels = probabilities.shape[1]
        there = ~np.isnan(probabilities[:, 0])
        names = pa.DictionaryArray.from_arrays(np.tile(np.arange(labels), there.sum()), self.names).cast(pa.string())
        values = pa.array(probabilities[there].ravel(), pa.float32())
        pairs = pa.StructArray.from_arrays([names, values], ["label", "probability"])
        offsets = np.concatenate(([0], np.cumsum(there * labels))).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pairs).cast(LABEL_PROBABILITIES.type)

    def _priors_of(self, prompts: pa.Table) -> np.ndarray:
        """The prior of every prompt's system message: float64 [N, L]."""
        systems = _system_messages(prompts["messages"]).dictionary_encode("encode")
        known = systems.dictionary.to_pylist()
        if unknown := [system for system in known if system not in self.priors]:
            raise CorpusError(
                f"a prompt brings the system message {str(unknown[0])[:60]!r}, which was not calibrated for: leave "
                "teacher.calibrate_on out, or set system_prompt: of its source"
            )
        priors = np.array([self.priors[system] for system in known]).reshape(-1, len(self.names))
        return priors[systems.indices.to_numpy()]


def read_labelling(
    settings: Config, prompts: PromptSet, store: TraceStore, finished: pa.Table, tokenizer: Any
) -> Labelling:
    """How the labels of a version are read.

    Args:
        settings: the config.
        prompts: with the content-free ones.
        store: what the teacher said.
        finished: columns prompt_row, part, row, of all prompts.
        tokenizer: the teacher's.

    Raises:
        CorpusError: the teacher failed on an input without content, so that nothing can be calibrated.
    """
    names, token_ids = list(settings.teacher.labels), label_token_ids(settings.teacher, tokenizer)
    content_free = is_content_free(prompts, settings)
    rows = finished.filter(pa.array(content_free[finished["prompt_row"].to_numpy()]))
    priors: dict[str | None, np.ndarray] = {}
    if len(rows):
        part = store.read(rows.select(["part", "row"]), ["error", "error_detail", "sampled_logprobs"])
        if errors := part["error"].drop_null().to_pylist():
            raise CorpusError(
                f"the teacher failed on an input without content ({errors[0]}): change teacher.calibrate_on, or run "
                "with --retry-failed"
            )
        scores = _scores(part, np.ones(len(part), bool), token_ids)
        systems = _system_messages(prompts.take(rows["prompt_row"].to_numpy())["messages"]).to_pylist()
        for system in dict.fromkeys(systems):
            priors[system] = label_prior(scores[[one == system for one in systems]])
    return Labelling(names, token_ids, content_free, priors)


def _scores(part: pa.Table, there: np.ndarray, token_ids: list[list[int]]) -> np.ndarray:
    """Length-normalised log-probabilities of the rows that are `there`: float64 [N, L]."""
    lengths = [len(tokens) for tokens in token_ids]
    flat = pc.list_flatten(part["sampled_logprobs"].filter(pa.array(there))).to_numpy()
    return label_scores(flat.reshape(-1, sum(lengths)), lengths)


def _system_messages(messages: pa.ChunkedArray) -> pa.Array:
    """The system message of every chat, null where it has none."""
    first = pc.list_element(messages.combine_chunks(), 0)
    is_system = pc.equal(pc.struct_field(first, "role"), "system")
    return pc.if_else(is_system, pc.struct_field(first, "content"), pa.scalar(None, pa.string()))
