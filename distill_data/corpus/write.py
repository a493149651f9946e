"""How a version's Parquet files are written: file metadata, row groups, durability.

Nothing in a file depends on time, path or machine: equal rows give equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distill_data.config import Config
from distill_data.corpus.assembly import Assembly
from distill_data.corpus.manifest import FileFacts
from distill_data.parquet import METADATA_KEY, write_options
from distill_data.records import SCHEMA_VERSION
from distill_data.soft_labels import MANTISSA_BITS

ALIGNMENT = "entry t describes the distribution that produced completion token t"
LABEL_ALIGNMENT = "entry t is the log-probability of completion token t; these are the tokens of all labels, in order"
TAIL = "1 - sum(exp(support_logprobs)) is the probability of all other tokens together; nothing is renormalised"
ESTIMATOR = (
    "a token is kept with probability min(1, draws x p): max(exp(support_logprobs), 1 / draws) for kept ones and 0 for "
    "others is the distribution in expectation; nothing is renormalised"
)
# A page is full with its first value, and the writer looks only at the end of what it is given at once.
PAGE_PER_CHUNK = {
    "write_page_index": True,
    "use_content_defined_chunking": False,
    "data_page_size": 1,
    "write_batch_size": 1 << 30,
}


def file_metadata(job: Assembly) -> dict[str, Any]:
    """What every file says about its rows, under the key `distill_data`."""
    teacher = job.config.teacher
    common = {
        "schema_version": SCHEMA_VERSION,
        "teacher": public_model_name(teacher.model),
        "teacher_id": job.teacher_id,
        "tokenizer_sha256": job.tokenizer["sha256"],
        "vocab_size": job.tokenizer["vocab_size"],
        "base": "e",
        "normalisation": "full_vocab",
        "logprobs_mode": "raw_logprobs",
    }
    if job.labelling is not None:
        return common | {"labels": job.labelling.facts.token_ids, "alignment": LABEL_ALIGNMENT}
    return common | {
        "sampling_temperature": _temperature(job.config),
        **teacher.soft_labels.ingredients,
        "kind": teacher.soft_labels.kind,
        "rounding": teacher.soft_labels.rounding,
        "mantissa_bits": MANTISSA_BITS[teacher.soft_labels.rounding],
        "alignment": ALIGNMENT,
        **({"estimator": ESTIMATOR} if teacher.soft_labels.kind == "sampled" else {"tail": TAIL}),
    }


def _temperature(config: Config) -> float | dict[str, float] | None:
    """What completions were sampled at: by source where sources differ, null where they were only scored."""
    if config.teacher.mode == "score":
        return None
    by_source = {source.label: config.sampling_of(source).temperature for source in config.prompts}
    return by_source if len({*by_source.values()}) > 1 else next(iter(by_source.values()))


def public_model_name(reference: str) -> str:
    """A model reference without this machine's folders: a hub id as it is, a path only its last name."""
    return Path(reference).name if reference.startswith(("/", "~", ".")) else reference


@contextmanager
def parquet_writer(
    path: Path, schema: pa.Schema, metadata: dict[str, Any], page_per_chunk: bool = False
) -> Iterator[pq.ParquetWriter]:
    """A writer of one file that is on disk when the block ends; each table written is one row group.

    With `page_per_chunk` every chunk of a column is a page (see `distill_data.corpus.cuts`), else pyarrow cuts pages.
    """
    options = write_options(schema) | (PAGE_PER_CHUNK if page_per_chunk else {})
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        with pq.ParquetWriter(file, schema.with_metadata({METADATA_KEY: text}), **options) as writer:
            yield writer
        file.flush()
        os.fsync(file.fileno())


def file_facts(folder: Path, path: Path) -> FileFacts:
    """Rows, bytes and hash of a written file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    rows = pq.read_metadata(path).num_rows
    relative = path.relative_to(folder).as_posix()
    return FileFacts(path=relative, rows=rows, bytes=path.stat().st_size, sha256=sha256)
