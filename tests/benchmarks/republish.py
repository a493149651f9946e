"""How many bytes does a hub get again for a version that differs a little from the one before? By xet's own chunks.

A version of traces of 500 tokens with soft labels is assembled and uploaded by hf_xet into a store of its own
(`local://`), then versions with rows more or fewer. New bytes are what the store grew by; changed bytes are the share
of the first version's that the rows have which came or went.

    .venv/bin/python -m tests.benchmarks.republish
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.config import Config
from distill_data.corpus.assemble import assemble
from distill_data.corpus.assembly import Assembly
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.identity import digest
from distill_data.parquet import place
from distill_data.part_file import encode_part
from distill_data.planning import Retries, make_plan
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.reasoning import split_completion
from distill_data.records import PART_SCHEMA, Prompt, prompts_to_table
from distill_data.trace_store import TraceStore
from tests.benchmarks import filtering
from tests.benchmarks.report import Result, parser, publish

PROMPTS, SAMPLES, PART_ROWS = 5000, 4, 200
GOAL = 1.3  # new bytes / changed bytes
TEACHER_ID = "0123456789abcdef"
FLOOR = (
    "The floor of dropped rows is not 1: a row lies in five large columns, and xet keeps chunks of about 64 KiB, so "
    "that a dropped trace of 20 kB makes some 320 kB new, 16 times itself (4 times, where the 4 traces of a prompt go "
    "together). A page is new as a whole: where 1 % of rows go at random, 1 - 0.99^n of pages of n rows are touched, "
    "15 % of those of 16 rows."
)
VERSIONS = ["+1 %", "+10 %", "-1 % at the end", "-1 % scattered", "a filter that drops 1 %"]


@dataclass(frozen=True)
class Sent:
    """What one version cost."""

    version: str
    rows: int
    bytes: int
    changed_bytes: float
    new_bytes: int

    @property
    def ratio(self) -> float:
        """New bytes for each changed one."""
        return self.new_bytes / self.changed_bytes


def write_store(root: Path, prompt_ids: pa.ChunkedArray) -> TraceStore:
    """Traces of all prompts, no two alike."""
    store = TraceStore(root, TEACHER_ID)
    store.folder.mkdir(parents=True)
    rows = len(prompt_ids) * SAMPLES
    for start in range(0, rows, PART_ROWS):
        numbers = np.arange(start, min(start + PART_ROWS, rows))
        own = {
            "prompt_id": prompt_ids.take(pa.array(numbers // SAMPLES)).combine_chunks(),
            "sample_index": pa.array((numbers % SAMPLES).astype(np.int32)),
            "content_digest": pa.array([f"{number:032x}" for number in numbers.tolist()]),
        }
        name, data = encode_part(pa.table({**own, **random_traces(len(numbers), start)}, PART_SCHEMA))
        place(data, store.folder / name)
    return store


def random_traces(rows: int, seed: int, tokens: int = filtering.TOKENS) -> dict[str, Any]:
    """Columns of traces with random tokens and distributions like SmolLM2's: a support of 1 to 40 tokens."""
    random = np.random.default_rng(seed)
    counts = np.minimum(random.geometric(0.08, rows * tokens), 40).astype(np.uint8)
    offsets = pa.array((np.arange(rows + 1) * tokens).astype(np.int32))
    ends = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
    kept = pa.array(ends[np.arange(rows + 1) * tokens].astype(np.int32))
    fallen = np.cumsum(0.1 + 0.25 * random.random(ends[-1]))  # likeliest first
    logprobs = (-0.3 - fallen + np.repeat(fallen[ends[:-1]], counts)).astype(np.float16)
    ids = random.zipf(1.2, rows * tokens + ends[-1]) % filtering.VOCABULARY
    texts = [" ".join(str(number) for number in random.integers(0, 10**6, 40).tolist()) for _ in range(rows)]
    nothing = pa.nulls(rows, pa.string())
    return {
        "completion": pa.array(texts),
        "prompt_suffix": pa.array([""] * rows),
        "finish_reason": pa.array(["stop"] * rows),
        "error": nothing,
        "error_detail": nothing,
        "prompt_tokens": pa.array(np.full(rows, 4, np.int32)),
        "completion_tokens": pa.array(np.full(rows, tokens, np.int32)),
        "mean_logprob": pa.array((-((seed + np.arange(rows)) % 100) / 100).astype(np.float32)),
        "prompt_token_ids": pa.array([[1, 2, 3, 4]] * rows, pa.list_(pa.int32())),
        "completion_token_ids": pa.ListArray.from_arrays(offsets, pa.array(ids[: rows * tokens].astype(np.int32))),
        "sampled_logprobs": pa.ListArray.from_arrays(
            offsets, pa.array((-3 * random.random(rows * tokens)).astype(np.float32))
        ),
        "support_counts": pa.ListArray.from_arrays(offsets, pa.array(counts)),
        "support_ids": pa.ListArray.from_arrays(kept, pa.array(ids[rows * tokens :].astype(np.int32))),
        "support_logprobs": pa.ListArray.from_arrays(kept, pa.array(logprobs)),
    }


def make_version(store: TraceStore, root: Path, table: pa.Table, **filters: Any) -> Corpus:
    """The next version, of these prompts."""
    config = Config.model_validate(
        {
            "name": "republished",
            "root": str(root),
            "prompts": [{"source": "dataset", "path": "sums.jsonl", "prompt": "question"}],
            "teacher": {"model": "none", "sampling": {"samples": SAMPLES}},
            "filters": filters,
            "validation": {"fraction": 0.0},
        }
    )
    samples = np.full(len(table), SAMPLES)
    job = Assembly(
        config=config,
        prompts=PromptSet(table, DROPPED_SCHEMA.empty_table(), {"sums": {}}),
        store=store,
        finished=make_plan(table["prompt_id"], samples, store.index(), Retries(None)).finished,
        teacher_id=TEACHER_ID,
        teacher={},
        tokenizer={"sha256": "ab" * 32, "vocab_size": filtering.VOCABULARY, "eos_token_id": 2},
        digest=digest([table["prompt_id"].to_pylist(), filters]),
        split=partial(split_completion, reasoning=config.teacher.reasoning),
    )
    manifest = assemble(job, lambda _: None)
    return open_corpus(f"republished@v{manifest.version}", root)


def data_files(corpus: Corpus) -> list[str]:
    """What a hub gets of a version, its small texts left out."""
    return [str(corpus.path / facts.path) for facts in corpus.manifest.files]


def upload(files: list[str], chunks: Path, cache: Path) -> None:
    """Put files into a xet store in a folder; in a process of its own, which keeps nothing for the next one."""
    os.environ["HF_HOME"] = os.environ["HF_XET_CACHE"] = str(cache)
    import hf_xet

    chunks.mkdir(parents=True, exist_ok=True)
    put: Any = vars(hf_xet)["upload_files"]  # compiled code, which says nothing of itself
    put(files, f"local://{chunks}", None, None, None, "dataset")


def size_of(folder: Path) -> int:
    """Bytes of everything in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(prompts: int) -> list[Sent]:
    """What each of VERSIONS costs after a first one of this many prompts."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool,
    ):
        root, more = Path(folder), prompts + prompts // 10
        chats = ([{"role": "user", "content": f"What is {number} + 1?"}] for number in range(more))
        table = prompts_to_table(Prompt(chat, "sums") for chat in chats)
        store = write_store(root, table["prompt_id"])
        first = make_version(store, root, table.slice(0, prompts))
        pool.submit(upload, data_files(first), root / "first", root / "cache-0").result()
        sent = []
        for number, name in enumerate(VERSIONS, 1):
            later = _later(name, store, root, table, prompts)
            chunks = root / f"later-{number}"
            shutil.copytree(root / "first", chunks)
            before = size_of(chunks)
            pool.submit(upload, data_files(later), chunks, root / f"cache-{number}").result()
            sent.append(_sent(name, first, later, size_of(chunks) - before))
            shutil.rmtree(chunks)
    return sent


def _later(name: str, store: TraceStore, root: Path, table: pa.Table, prompts: int) -> Corpus:
    """The version of this name."""
    if name == VERSIONS[0]:
        return make_version(store, root, table.slice(0, prompts + prompts // 100))
    if name == VERSIONS[1]:
        return make_version(store, root, table.slice(0, prompts + prompts // 10))
    if name == VERSIONS[2]:
        return make_version(store, root, table.slice(0, prompts - prompts // 100))
    if name == VERSIONS[3]:
        return make_version(store, root, table.take(np.flatnonzero(np.arange(prompts) % 100 != 50)))
    return make_version(store, root, table.slice(0, prompts), min_mean_logprob=-0.985)


def _sent(name: str, first: Corpus, later: Corpus, new_bytes: int) -> Sent:
    rows, there = (corpus.manifest.counts["kept"] for corpus in (first, later))
    first_bytes, later_bytes = (sum(facts.bytes for facts in corpus.manifest.files) for corpus in (first, later))
    return Sent(name, there, later_bytes, first_bytes * abs(there - rows) / rows, new_bytes)


def figures_of(one: Sent) -> list[float]:
    """Changed and new megabytes, and their ratio."""
    return [one.changed_bytes / 1e6, one.new_bytes / 1e6, one.ratio]


def result_of(sent: list[Sent], first_rows: int) -> Result:
    """A line per version."""
    met = [one.version for one in sent if one.ratio <= GOAL]
    rows = [
        [
            one.version,
            f"{one.rows:,}",
            f"{one.changed_bytes / 1e6:.2f}",
            f"{one.new_bytes / 1e6:.2f}",
            f"{one.ratio:.2f}",
        ]
        for one in sent
    ]
    figures = ", ".join(f"{one.version} {one.ratio:.2f}" for one in sent)
    return Result(
        name="republish",
        title="Bytes that a hub gets again for the next version",
        headline=f"New bytes for each changed byte, by xet's own chunks (goal {GOAL}): {figures}.",
        header=["version", "rows", "changed MB", "new MB", "new / changed"],
        rows=rows,
        figures={"goal": GOAL, "met": met, "first_rows": first_rows, "versions": [vars(one) for one in sent]},
        note=f"After a version of {first_rows:,} traces of {filtering.TOKENS} tokens. Changed bytes are the first "
        "version's, times the share of rows that came or went. One run: chunking has no noise. " + FLOOR,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--prompts", type=int, default=PROMPTS)
    chosen = options.parse_args(arguments)
    publish(result_of(measure(chosen.prompts), chosen.prompts * SAMPLES), chosen.out)


if __name__ == "__main__":
    main()
