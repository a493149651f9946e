"""How many kept rows of every source a version has: caps, and shares by weight. Pure."""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.identity import unit_hash
from distill_data.keep_config import Mix

MIX_REASONS = {"not_in_mix": "its source has more kept rows than the mix asks for"}


def mixed(reasons: pa.Array, prompt_rows: np.ndarray, sources: pa.Array, group_ids: pa.Array, mix: Mix) -> pa.Array:
    """Drop reason of every trace: the one that it has, or `not_in_mix`, or null for a kept one.

    Which rows of a source stay is decided by a hash of their prompt's group: all samples of a prompt go before any of
    the next one, so that a larger mix later holds every row of a smaller one.

    Args:
        reasons: of every trace.
        prompt_rows: row of every trace in the prompt set.
        sources: labels of all prompts.
        group_ids: of all prompts.
        mix: the rules.
    """
    kept = np.flatnonzero(pc.is_null(reasons).to_numpy(zero_copy_only=False))
    labels = sources.take(pa.array(prompt_rows[kept])).dictionary_encode()
    there = dict(zip(labels.dictionary.to_pylist(), np.bincount(labels.indices.to_numpy()).tolist(), strict=True))
    wanted = rows_by_source(there, mix)
    hashes = _hashes(group_ids, prompt_rows[kept], mix.seed)
    dropped = np.zeros(len(reasons), bool)
    for code, label in enumerate(labels.dictionary.to_pylist()):
        rows = np.flatnonzero(labels.indices.to_numpy() == code)
        order = rows[np.lexsort((rows, hashes[rows]))]
        dropped[kept[order[wanted[label] :]]] = True
    return pc.if_else(pa.array(dropped), "not_in_mix", reasons)


def rows_by_source(there: Mapping[str, int], mix: Mix) -> dict[str, int]:
    """How many of the rows that are there each source gets: as many as caps, weights and the total allow.

    Sources without a weight are not weighed: they keep what caps leave. The weighted ones share what is left of the
    total in proportion, as far as the scarcest of them reaches.
    """
    room = {label: min(count, mix.max_rows.get(label, count)) for label, count in there.items()}
    free = {label: count for label, count in room.items() if label not in mix.weights}
    weighed = {label: count for label, count in room.items() if label in mix.weights}
    total = sum(room.values()) if mix.rows is None else mix.rows
    left = _scaled_to(free, total)
    if not weighed:
        return left
    whole = sum(mix.weights[label] for label in weighed)
    most = min([total - sum(left.values()), *(count * whole / mix.weights[label] for label, count in weighed.items())])
    return left | {label: int(most * mix.weights[label] / whole + 1e-9) for label in weighed}


def _scaled_to(room: Mapping[str, int], total: int) -> dict[str, int]:
    """The counts, or the same in proportion where they are more than the total."""
    there = sum(room.values())
    return {label: count if there <= total else count * total // there for label, count in room.items()}


def _hashes(group_ids: pa.Array, prompt_rows: np.ndarray, seed: int) -> np.ndarray:
    """A number in [0, 1) of every trace's prompt group: float64."""
    asked, at = np.unique(prompt_rows, return_inverse=True)
    groups = group_ids.take(pa.array(asked)).to_pylist()
    return np.array([unit_hash(seed, f"mix {group}") for group in groups])[at]
