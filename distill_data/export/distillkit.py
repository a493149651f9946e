"""DistillKit's offline distillation: rows of one length and one k, with raw `token_ids` and `top_values`.

Read in arcee-ai/DistillKit: main.py 3540a81, configuration.py 83a812b, trainer.py b8ed189, signals/offline.py 83a812b,
lossfuncs/kl.py 361c7ac, lossfuncs/common.py a61c2e7, compression/config.py 897bd13; the compressor that passes raw
rows through was read in zcomputerwiz/DistillKit at cea9009. What holds there:

- Only `prepacked: true` uses a collator that keeps columns beside `input_ids`. It makes a tensor of every column, so
  all are numbers, and all rows have one length: rows at the end that are not as long as the first are dropped.
- `repo_id` is what `datasets.load_dataset` takes, a folder too; `disk_path` would want `save_to_disk`'s files.
- The KL compares logits at position t with row t of `token_ids` and `top_values` (natural logarithms), so row t is the
  distribution of token t + 1. It is masked by `labels[t] >= 0`, which nobody shifts; the cross-entropy is
  transformers' own, which shifts labels.
- With `symmetric_uniform` the rest is one bucket on both sides; padding's share of the student's probability counts as
  outside that bucket. With `zero` the support is renormalised.

Hence `labels` are the tokens at the positions whose logits predict a completion token: the KL sees each of the
teacher's distributions, EOS's included, and no other; the cross-entropy sees the last token of the prompt and not EOS.
And hence padding is the token that the fewest distributions hold, mostly none, at a log-probability of -100: nothing in
float32, still finite in float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError
from distill_data.export.conversion import Conversion
from distill_data.export.distributions import IGNORED, Extent, lists, measure, position_labels

PADDED_LOGPROB = -100.0

_USAGE = """\
Every row has {longest} tokens and {widest} entries a position, padded: DistillKit takes rows of one length only. The
tokenizer has to be the teacher's. `symmetric_uniform` at temperature 1 keeps the tail as one bucket; `zero` would
renormalise the support.

```yaml
sequence_length: {longest}
dataset:
  train_dataset: {{repo_id: FOLDER, split: {split}}}
{validation}  prepacked: true
teacher:
  kind: dataset
  logprob_compressor:      # has to be there; nothing is compressed
    {{d: {vocabulary}, k: {widest}, exact_k: {widest}, delta_encoding: false, residual_bins: []}}
loss_functions:
  - {{function: kl, weight: 0.9, temperature: 1.0, missing_probability_handling: symmetric_uniform}}
  - {{function: cross_entropy, weight: 0.1}}
training_args:
  remove_unused_columns: false   # or the distributions are dropped before they are read
```
"""
_VALIDATION = "  eval_dataset: {repo_id: FOLDER, split: validation}\n"
LOST = (
    "cross-entropy on EOS (its distribution is in the KL), while it learns the last token of each prompt: labels stand "
    "one position early, where the KL reads them",
    "sampled_logprobs, and everything in traces/ (row i is row i of the corpus' split)",
)


def plan_distillkit(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """Rows for DistillKit, of one length and one k over all splits.

    Raises:
        CorpusError: a trace has a completion token without a distribution, or drawn tokens in place of the likeliest
            ones, or a file is damaged.
    """
    if corpus.draws is not None:
        raise CorpusError(
            f"{corpus.reference} has sampled soft labels, which DistillKit's losses would take for all that is likely: "
            "export axolotl, or build with soft_labels.kind: support"
        )
    extent, tokenizer = measure(corpus, splits), corpus.manifest.tokenizer
    ends = (tokenizer.get("pad_token_id"), tokenizer.get("eos_token_id"))
    padding = next((token for token in ends if token is not None), extent.rarest_id)
    return Conversion(
        family="soft_labels",
        suffix="parquet",
        batch_rows=extent.batch_rows,
        convert=partial(distillkit_rows, extent=extent, padding=padding),
        usage=_USAGE.format(
            longest=extent.longest,
            widest=extent.widest,
            vocabulary=tokenizer["vocab_size"],
            split=splits[0],
            validation=_VALIDATION if "validation" in splits[1:] else "",
        ),
        lost=LOST,
    )


def distillkit_rows(batch: pa.RecordBatch, extent: Extent, padding: int) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA in DistillKit's columns, L = extent.longest and K = extent.widest.

    input_ids, attention_mask and labels [L] (-100 where the next token is not the teacher's), token_ids and top_values
    [L][K], padded with extent.rarest_id and PADDED_LOGPROB. Rows are padded on the right with the token id `padding`.
    """
    flat = position_labels(batch)
    filled = np.arange(extent.longest) < flat.lengths[:, None]
    input_ids, counts = np.full(filled.shape, padding, np.int32), np.zeros(filled.shape, np.int64)
    input_ids[filled], counts[filled] = flat.input_ids, flat.counts
    kept = np.arange(extent.widest) < counts[..., None]
    token_ids = np.full(kept.shape, extent.rarest_id, np.int32)
    top_values = np.full(kept.shape, PADDED_LOGPROB, np.float32)
    token_ids[kept], top_values[kept] = flat.support_ids, flat.support_logprobs
    columns = {
        "input_ids": input_ids,
        "attention_mask": filled.astype(np.int8),
        "labels": np.where(counts > 0, input_ids, IGNORED).astype(np.int32),
        "token_ids": token_ids,
        "top_values": top_values,
    }
    return pa.table({name: _rectangles(values) for name, values in columns.items()})


def _rectangles(values: np.ndarray) -> pa.ListArray:
    """An array of two or more dimensions as lists in lists."""
    nested: np.ndarray | pa.Array = values.reshape(-1)
    for depth in range(values.ndim - 1, 0, -1):
        nested = lists(np.full(int(np.prod(values.shape[:depth])), values.shape[depth]), nested)
    return nested
