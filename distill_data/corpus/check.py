"""Verify a version: every file against the manifest, and the promises that hold between files."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distill_data.corpus.label_check import label_problems
from distill_data.corpus.manifest import FileFacts
from distill_data.corpus.read import FAMILIES, Corpus

_BATCH_ROWS = 1024
_ROUNDING = 1e-3  # a sure token may have a log-probability slightly above 0 in float32


def verify_corpus(corpus: Corpus) -> list[str]:
    """What is wrong with a version, one line a problem, each naming the file; empty when it is whole.

    Files are checked one by one first; what holds between files is looked at only when each of them is whole.
    """
    problems = [line for file in corpus.manifest.files for line in _file_problems(corpus, file)]
    problems += _unlisted(corpus) + _count_problems(corpus)
    if problems:
        return problems
    for split in corpus.splits:
        for traces in corpus.files("traces", split):
            labels = corpus.path / "soft_labels" / traces.name
            problems += _pair_problems(corpus.path, traces, labels, corpus.manifest.tokenizer["vocab_size"])
            if corpus.labels:
                problems += label_problems(traces, corpus.labels, f"traces/{traces.name}")
    return problems + _identity_problems(corpus)


def _file_problems(corpus: Corpus, facts: FileFacts) -> Iterator[str]:
    path = corpus.path / facts.path
    if not os.path.lexists(path):
        yield f"{facts.path}: is missing"
        return
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        yield f"{facts.path}: cannot be read: {error.strerror}"
        return
    if size != facts.bytes:
        yield f"{facts.path}: has {size:,} bytes, the manifest says {facts.bytes:,}"
    elif sha256 != facts.sha256:
        yield f"{facts.path}: its bytes changed: sha256 {sha256[:12]}, the manifest says {facts.sha256[:12]}"
    else:
        yield from _content_problems(corpus, path, facts)


def _content_problems(corpus: Corpus, path: Path, facts: FileFacts) -> Iterator[str]:
    """Problems of a file whose bytes are as the manifest says."""
    family = facts.path.split("/")[0]
    try:
        file = pq.ParquetFile(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        yield f"{facts.path}: is no Parquet file: {' '.join(str(error).split())[:200]}"
        return
    if file.metadata.num_rows != facts.rows:
        yield f"{facts.path}: has {file.metadata.num_rows:,} rows, the manifest says {facts.rows:,}"
    if family not in FAMILIES or not _nullable(file.schema_arrow).equals(_nullable(corpus.schema(family))):
        yield f"{facts.path}: its columns are not those of {family} in this schema version"


def _nullable(schema: pa.Schema) -> pa.Schema:
    """The same without the word that nothing in its lists is null, which older versions do not say."""
    kinds = ((field.name, field.type) for field in schema)
    return pa.schema([(name, pa.list_(kind.value_type) if pa.types.is_list(kind) else kind) for name, kind in kinds])


def _unlisted(corpus: Corpus) -> list[str]:
    listed = {file.path for file in corpus.manifest.files}
    there = sorted(path.relative_to(corpus.path).as_posix() for path in corpus.path.rglob("*.parquet"))
    return [f"{path}: is not in the manifest" for path in there if path not in listed]


def _count_problems(corpus: Corpus) -> list[str]:
    """Rows of files against the counts, from the manifest alone."""
    rows = dict.fromkeys(_FAMILY_SPLITS, 0)
    for file in corpus.manifest.files:
        family, name = file.path.split("/")
        rows[family, name.split("-")[0]] = rows.get((family, name.split("-")[0]), 0) + file.rows
    counts = corpus.manifest.counts
    problems = [
        f"manifest.json: {family}/{split} has {found:,} rows in its files, counts say {counts.get(split, 0):,}"
        for (family, split), found in rows.items()
        if found != counts.get(split, 0)
    ]
    if sum(corpus.manifest.dropped.values()) != (rejected := counts.get("rejected", 0)):
        problems.append(f"manifest.json: drop reasons do not add up to the rejected rows, {rejected:,}")
    return problems


_FAMILY_SPLITS = [
    *((family, split) for family in ("traces", "soft_labels") for split in ("train", "validation")),
    ("rejected", "rejected"),
]


def _pair_problems(folder: Path, traces: Path, labels: Path, vocabulary: int) -> Iterator[str]:
    """Rows of a soft-label file against the traces beside it; token ids are below `vocabulary`."""
    name = labels.relative_to(folder).as_posix()
    if not labels.is_file():
        yield f"{name}: is missing beside {traces.relative_to(folder).as_posix()}"
        return
    light = pq.read_table(traces, columns=["trace_id", "prompt_tokens", "completion_tokens"])
    start = 0
    for batch in pq.ParquetFile(labels).iter_batches(batch_size=_BATCH_ROWS):
        beside = light.slice(start, len(batch))
        if empty := next((column for column in batch.schema.names if _has_nulls(batch.column(column))), None):
            yield f"{name}: {empty} has nulls in rows {start} to {start + len(batch) - 1}"
            return
        for what, wrong in _wrong_rows(batch, beside, vocabulary).items():
            if wrong.any():
                yield f"{name}: row {start + int(np.argmax(wrong))}: {what}"
        start += len(batch)
    if start != len(light):
        yield f"{name}: has {start:,} rows, {traces.relative_to(folder).as_posix()} has {len(light):,}"


def _has_nulls(column: pa.Array) -> bool:
    return column.null_count > 0 or (pa.types.is_list(column.type) and pc.list_flatten(column).null_count > 0)


def _wrong_rows(labels: pa.RecordBatch, traces: pa.Table, vocabulary: int) -> dict[str, np.ndarray]:
    """Per promise, which rows of a batch break it: bool [rows]. `traces` may be shorter."""
    labels = labels.slice(0, len(traces))
    lengths = {name: _lengths(labels.column(name)) for name in labels.schema.names if name != "trace_id"}
    tokens = lengths["completion_token_ids"]
    stated = {name: traces[name].to_numpy() for name in ("prompt_tokens", "completion_tokens")}
    offsets = np.concatenate(([0], np.cumsum(lengths["support_counts"])))
    running = np.concatenate(([0], np.cumsum(_flat(labels, "support_counts"), dtype=np.int64)))
    counted = np.diff(running[offsets])
    return {
        "trace_id differs from the traces file": pc.not_equal(
            labels.column("trace_id"), traces["trace_id"].combine_chunks()
        ).to_numpy(zero_copy_only=False),
        "prompt_token_ids is not prompt_tokens long": lengths["prompt_token_ids"] != stated["prompt_tokens"],
        "completion_token_ids is not completion_tokens long": tokens != stated["completion_tokens"],
        "sampled_logprobs is not one per completion token": lengths["sampled_logprobs"] != tokens,
        "support_counts is not one per completion token": lengths["support_counts"] != tokens,
        "support_counts do not add up to support_ids": counted != lengths["support_ids"],
        "support_counts do not add up to support_logprobs": counted != lengths["support_logprobs"],
        "sampled_logprobs are not all finite and at most 0": _any_in_row(labels, "sampled_logprobs", _impossible),
        "support_logprobs are not likeliest first": _any_in_row(labels, "support_logprobs", _rising_within(labels)),
        "support_logprobs are not all finite and at most 0": _any_in_row(labels, "support_logprobs", _impossible),
        **{
            f"{name} are not all among the teacher's {vocabulary:,}": _any_in_row(
                labels, name, lambda ids: (ids < 0) | (ids >= vocabulary)
            )
            for name in ("prompt_token_ids", "completion_token_ids", "support_ids")
        },
    }


def _any_in_row(labels: pa.RecordBatch, name: str, wrong: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Which rows have a value in a list column that is wrong: bool [rows]."""
    ends = np.concatenate(([0], np.cumsum(np.maximum(_lengths(labels.column(name)), 0))))
    return np.diff(np.concatenate(([0], np.cumsum(wrong(_flat(labels, name)))))[ends]) > 0


def _rising_within(labels: pa.RecordBatch) -> Callable[[np.ndarray], np.ndarray]:
    """Which log-probabilities are above the one before them in the same support; none where counts do not add up."""
    counts = _flat(labels, "support_counts").astype(np.int64)

    def rising(values: np.ndarray) -> np.ndarray:
        if counts.sum() != len(values):
            return np.zeros(len(values), bool)
        above = np.diff(values.astype(np.float32), prepend=np.float32(np.inf)) > 0
        above[(np.cumsum(counts) - counts)[counts > 0]] = False
        return above

    return rising


def _impossible(logprobs: np.ndarray) -> np.ndarray:
    return ~(np.isfinite(logprobs) & (logprobs <= _ROUNDING))


def _flat(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return pc.list_flatten(batch.column(name)).to_numpy()


def _lengths(column: pa.Array) -> np.ndarray:
    """Lengths of lists; -1 where there is none."""
    return pc.fill_null(pc.list_value_length(column), -1).to_numpy()


def _identity_problems(corpus: Corpus) -> list[str]:
    """Trace ids are unique over all splits and rejected rows, and no prompt is on two sides."""
    ids = {split: _column(corpus, split, "trace_id") for split in (*corpus.splits, "rejected")}
    ids["rejected"] = ids["rejected"].drop_null()  # prompts that no teacher saw
    prompts = {split: _column(corpus, split, "prompt_id").unique() for split in corpus.splits}
    every = pa.chunked_array([chunk for column in ids.values() for chunk in column.chunks], pa.string())
    problems = []
    if repeated := len(every) - pc.count_distinct(every).as_py():
        counts = pc.value_counts(every)
        example = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
        problems.append(f"traces/: {repeated:,} trace ids are there twice, for example {example}")
    if "validation" in prompts:
        both = prompts["validation"].filter(pc.is_in(prompts["validation"], value_set=prompts["train"]))
        problems += [f"traces/validation-*: prompt {prompt} is in train too" for prompt in both.to_pylist()[:10]]
    return problems


def _column(corpus: Corpus, split: str, name: str) -> pa.ChunkedArray:
    family = "rejected" if split == "rejected" else "traces"
    columns = [pq.read_table(file, columns=[name])[name] for file in corpus.files(family, split)]
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
