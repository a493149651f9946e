"""Traces of one prompt that are nearly the same, among those that are kept so far."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.corpus.assembly import Assembly
from distill_data.filters.alike_samples import alike_samples
from distill_data.filters.shingles import HashedTexts


def drop_alike(job: Assembly, decisions: pa.Table, texts: HashedTexts) -> pa.Table:
    """The decisions, in which a trace like an earlier kept one of its prompt is a `near_duplicate_sample`.

    `decisions` are of whole prompts, and `texts` what their traces say.
    """
    kept = np.flatnonzero(pc.is_null(decisions["drop_reason"]).to_numpy())
    section, like = job.config.deduplicate, np.arange(len(decisions))
    prompts = decisions["prompt_row"].to_numpy()[kept]
    like[kept] = kept[alike_samples(texts.take(kept), prompts, section.sample_similarity, section.ngram)]
    dropped = pa.array(like != np.arange(len(decisions)))
    samples = decisions["sample_index"].take(pa.array(like)).cast(pa.string()).combine_chunks()
    told = {
        "drop_reason": pa.scalar("near_duplicate_sample"),
        "drop_detail": pc.binary_join_element_wise("nearly the same as sample ", samples, ""),
    }
    for name, values in told.items():
        column = pc.if_else(dropped, values, decisions[name])
        decisions = decisions.set_column(decisions.schema.get_field_index(name), name, column)
    return decisions
