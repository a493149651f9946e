"""Which prompts a version holds out, also those of which it has no row."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Validation
from distill_data.corpus.read import Corpus
from distill_data.identity import unit_hash

_ROWS_AT_ONCE = 4096


def held_out_of(prompts: pa.Table, corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Which prompts are held out of a version (bool [prompts]), and the hash of each one's group (float64 [prompts]).

    A group is held out where its hash is, or its rows in the version are; never where one is trained on. Where all
    traces of a prompt were dropped the hash alone says it: such prompts are asked when the student is evaluated.

    Args:
        prompts: PROMPT_SCHEMA, `prompt_id` and `group_id` at least.
        corpus: the version.

    Raises:
        CorpusError: a file of the version is damaged.
    """
    validation = Validation.model_validate(corpus.manifest.config["validation"])
    groups = prompts["group_id"].combine_chunks().dictionary_encode()
    group_of = groups.indices.to_numpy()
    names = groups.dictionary.to_pylist()
    hashes = np.fromiter((unit_hash(validation.seed, name) for name in names), np.float64, len(names))
    away = (hashes < validation.fraction) | _with_rows(prompts, group_of, len(names), corpus, "validation")
    away &= ~_with_rows(prompts, group_of, len(names), corpus, "train")
    return away[group_of], hashes[group_of]


def _with_rows(prompts: pa.Table, group_of: np.ndarray, groups: int, corpus: Corpus, split: str) -> np.ndarray:
    """Which groups have rows in a split of the version: bool [groups]."""
    batches = corpus.batches("traces", split, _ROWS_AT_ONCE) if split in corpus.splits else ()
    ids = pa.chunked_array([batch["prompt_id"] for batch in batches], pa.string())
    there = pc.is_in(prompts["prompt_id"], value_set=ids.combine_chunks()).to_numpy()
    found = np.zeros(groups, bool)
    found[group_of[there]] = True
    return found
