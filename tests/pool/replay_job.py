"""Small jobs with the replay teacher: a config on disk, and a worker that runs in the test's own process."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from distill_data.build import BuildPlan, plan_build
from distill_data.config import Config
from distill_data.lease import Lease
from distill_data.models import load_tokenizer
from distill_data.planning import shard_of
from distill_data.prompts import load_prompts
from distill_data.teachers.generation import Budget, GenerationProgress, GenerationReport, Work
from distill_data.teachers.messages import NoMoreShards, PartWritten, Stopped, TeacherJob, WorkerJob
from distill_data.teachers.replay import ReplayTeacher
from distill_data.teachers.worker import TeacherWorker
from distill_data.teachers.worker_process import describe_tokenizer
from distill_data.trace_store import TraceStore


def write_prompts(file: Path, count: int, words: int = 1) -> Path:
    """A JSON lines file of questions; the replay teacher answers 0, 1, 2 or 3."""
    rows = [{"question": f"你好 {number}? " * words, "answer": str(number % 4)} for number in range(count)]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return file


def make_config(root: Path, model: Path, prompts: Path, **sections: Any) -> Config:
    """A config of the replay teacher; `sections` replace its own, those of the teacher go under `teacher`."""
    teacher: dict[str, Any] = {
        "model": str(model),
        "backend": "replay",
        "sampling": {"samples": 2, "max_tokens": 64},
        "soft_labels": {"max_support": 4},
        "engine": {"max_num_seqs": 4},
    }
    source = {"source": "dataset", "path": str(prompts), "prompt": "question", "reference": "answer"}
    tree = {"name": "replayed", "root": str(root), "prompts": [source], **sections}
    return Config.model_validate(tree | {"teacher": teacher | sections.get("teacher", {})})


def plan(config: Config) -> BuildPlan:
    return plan_build(config, load_prompts(list(config.prompts), config.teacher.mode))


def committed(store: TraceStore) -> Counter[tuple[str, int]]:
    """How often each (prompt, sample) is in the parts, before duplicates are resolved."""
    rows: Counter[tuple[str, int]] = Counter()
    for name in store.parts():
        table = pq.read_table(store.folder / name, columns=["prompt_id", "sample_index"])
        rows.update(zip(table["prompt_id"].to_pylist(), table["sample_index"].to_pylist(), strict=True))
    return rows


def wanted(build: BuildPlan) -> Counter[tuple[str, int]]:
    samples = range(build.config.teacher.sampling.samples)
    return Counter((prompt, sample) for prompt in build.prompts.table["prompt_id"].to_pylist() for sample in samples)


def part_rows(store: TraceStore) -> list[int]:
    return [pq.read_metadata(store.folder / name).num_rows for name in store.parts()]


class InlinePool:
    """Stands in for the pool of processes: the same worker, in this process, on the replay teacher."""

    def __init__(self, job: TeacherJob, root: Path, *, lease: Lease | None = None, verbose: bool = False) -> None:
        self.job = job
        self.teacher: Any = ReplayTeacher(load_tokenizer(job.source), job.teacher)
        self.messages: list[Any] = []

    def start(self) -> None:
        """There is no process to start."""

    def close(self) -> None:
        """There is no process to end."""

    def run(self, work: Work, budget: Budget, on_progress: Callable[[GenerationProgress], None]) -> GenerationReport:
        """Hand over all shards at once and read what the worker said afterwards."""
        TraceStore(work.root, work.teacher_id).describe({"tokenizer": describe_tokenizer(self.teacher)})
        ours, theirs = Pipe()
        for start in range(0, len(work.missing), work.storage.shard_size):
            traces = np.arange(start, min(start + work.storage.shard_size, len(work.missing)))
            ours.send(shard_of(work.missing, traces))
        ours.send(NoMoreShards())
        job = WorkerJob(work.storage, work.root, work.teacher_id, work.ingredients, work.prompts_path)
        self.worker = TeacherWorker(self.teacher, self.job.teacher, job, theirs)
        listener = Thread(target=self._listen, args=[ours], daemon=True)  # or the pipe would fill up
        listener.start()
        try:
            self.worker.run()
        finally:
            theirs.close()
            listener.join()
        parts = [message.part for message in self.messages if isinstance(message, PartWritten)]
        assert isinstance(self.messages[-1], Stopped)
        return GenerationReport(
            traces=sum(part.rows for part in parts),
            tokens=sum(part.completion_tokens for part in parts),
            parts=len(parts),
            load_seconds=0.0,
            engine_seconds=1.0,
        )

    def _listen(self, connection: Connection) -> None:
        with suppress(EOFError):
            while True:
                self.messages.append(connection.recv())
