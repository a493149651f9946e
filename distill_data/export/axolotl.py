"""axolotl's knowledge-distillation plugin: pre-tokenised rows with the teacher's distribution at every position.

Read in axolotl-ai-cloud/axolotl: `integrations/kd` (README, collator.py, kernels/liger.py) at 139786b, and how datasets
get there in `utils/data` (sft.py 00cda8c, shared.py 01303b0, wrappers.py 0ca4645). What holds there:

- A dataset with `input_ids`, `attention_mask` and `labels` counts as tokenised and is passed on as it is.
- `target_token_ids[t]`, `target_logprobs[t]` and `target_mask[t]` describe the distribution of token t + 1; neither the
  collator nor the loss shifts them. `labels` stay unshifted: the cross-entropy shifts them itself.
- The collator pads a position's k to the batch's widest with id 0, log-probability -1e9 and mask 0, and rows on the
  right. So positions are written as they are, of different widths, and empty where nothing is to be learned.
- The loss drops what is masked after `kd_normalize_topk` has normalised the student over all k, padding included, and
  reads the teacher's log-probabilities as given: the option has to be off.
- The dataset's own strategies rescale to `kd_temperature`; on pre-tokenised rows nothing does: it has to be 1.

Tried with the release 0.19.0: both of its collators and its loss, with these settings, give the KL over a corpus' own
supports to 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from distill_data.corpus.read import Corpus
from distill_data.export.conversion import Conversion
from distill_data.export.distributions import lists, measure, position_labels

_USAGE = """\
Log-probabilities are normalised over the full vocabulary at temperature 1, so the two marked settings have to stay.
The tokenizer has to be the teacher's and pad on the right.

```yaml
plugins: [axolotl.integrations.kd.KDPlugin]
kd_trainer: true
kd_alpha: 0.9
kd_ce_alpha: 0.1
kd_temperature: 1.0        # rows are not rescaled
kd_normalize_topk: false   # would normalise the student over padding too
skip_prepare_dataset: true
sequence_len: {longest}          # at least the longest trace
datasets:
  - {{path: FOLDER, split: {split}, type: }}
{validation}```
"""
_VALIDATION = """\
test_datasets:
  - {path: FOLDER, split: validation, type: }
"""
LOST = (
    "the tail: the loss has no bucket for the probability outside the support, so the student learns the support alone"
)
LOST_OF_DRAWN = (
    "the probabilities of drawn tokens that are less likely than 1 / draws: that takes their place, which makes the "
    "loss an unbiased one but for a constant"
)
REST = "sampled_logprobs, and everything in traces/ (row i is row i of the corpus' split)"


def plan_axolotl(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """Rows for axolotl's KD plugin.

    Raises:
        CorpusError: a trace has a completion token without a distribution, or a file is damaged.
    """
    extent = measure(corpus, splits)
    validation = _VALIDATION if "validation" in splits[1:] else ""
    return Conversion(
        family="soft_labels",
        suffix="parquet",
        batch_rows=extent.batch_rows,
        convert=partial(axolotl_rows, draws=corpus.draws),
        usage=_USAGE.format(longest=extent.longest, split=splits[0], validation=validation),
        lost=(LOST if corpus.draws is None else LOST_OF_DRAWN, REST),
    )


def axolotl_rows(batch: pa.RecordBatch, draws: int | None = None) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA in the plugin's columns; L is a trace's tokens, k differs from position to position.

    input_ids, attention_mask and labels [L] (the prompt is -100; EOS is a label like any token), target_token_ids,
    target_logprobs and target_mask [L][k]. Of sampled soft labels, by so many `draws`, the log-probabilities are those
    of the weights that stand for the whole distribution, max(p, 1 / draws).
    """
    flat = position_labels(batch)
    least = -math.inf if draws is None else -math.log(draws)
    columns = {
        "input_ids": flat.input_ids,
        "attention_mask": np.ones(len(flat.input_ids), np.int8),
        "labels": flat.labels,
        "target_token_ids": lists(flat.counts, flat.support_ids),
        "target_logprobs": lists(flat.counts, np.maximum(flat.support_logprobs, least, dtype=np.float32)),
        "target_mask": lists(flat.counts, np.ones(len(flat.support_ids), np.int8)),
    }
    return pa.table({name: lists(flat.lengths, values) for name, values in columns.items()})
