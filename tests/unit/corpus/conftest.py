"""Synthetic traces in a real trace store, ready to be assembled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill_data.config import Config
from distill_data.corpus.assemble import Assembly
from distill_data.corpus.digest import corpus_digest
from distill_data.identity import sampling_seed
from distill_data.planning import Retries, make_plan
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.reasoning import Splitter, split_completion
from distill_data.records import Prompt, SoftLabels, Trace, prompts_to_table
from distill_data.soft_labels import empty_soft_labels, select_support
from distill_data.teacher_config import SoftLabelSelection
from distill_data.trace_store import TraceStore

TEACHER_ID = "0123456789abcdef"
VOCAB_SIZE = 400

MakeJob = Callable[..., Assembly]


def make_labels(seed: int, tokens: int) -> SoftLabels:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 3.0, (tokens, VOCAB_SIZE))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    order = np.argsort(-logprobs, axis=1)[:, :32]
    top = np.take_along_axis(logprobs, order, axis=1)
    return select_support(order, top, top[:, 0], SoftLabelSelection(min_prob=0.01, max_support=16))


def make_trace(prompt: Prompt, sample: int, completion: str, **changes: Any) -> Trace:
    seed = sampling_seed(0, prompt.prompt_id, sample) % 2**32
    rng = np.random.default_rng(seed)
    tokens = int(rng.integers(3, 12))
    trace = Trace(
        prompt_id=prompt.prompt_id,
        sample_index=sample,
        prompt_token_ids=rng.integers(0, VOCAB_SIZE, 5).astype(np.int32),
        prompt_suffix="<|im_start|>assistant\n",
        completion_token_ids=rng.integers(0, VOCAB_SIZE, tokens).astype(np.int32),
        completion=completion,
        finish_reason="stop",
        soft_labels=make_labels(seed, tokens),
    )
    return replace(trace, **changes)


def failed_trace(prompt: Prompt, sample: int) -> Trace:
    return make_trace(
        prompt,
        sample,
        "",
        completion_token_ids=np.empty(0, np.int32),
        soft_labels=empty_soft_labels(),
        finish_reason="error",
        error="prompt_too_long",
        error_detail="700 tokens, the context holds 512",
    )


def make_prompts(count: int) -> list[Prompt]:
    return [
        Prompt([{"role": "user", "content": f"What is {n} + 1?"}], "sums", str(n + 1), {"n": n}) for n in range(count)
    ]


def right_or_wrong(prompts: list[Prompt], samples: int) -> list[Trace]:
    """Every sample of a prompt; odd samples are wrong, and the third of every fifth prompt is cut."""
    traces = []
    for number, prompt in enumerate(prompts):
        for sample in range(samples):
            answer = "no idea" if sample % 2 else prompt.reference
            cut = {"finish_reason": "length"} if sample == 2 and number % 5 == 0 else {}
            traces.append(make_trace(prompt, sample, f"<think>\nadd 1\n</think>\n\n{answer}", **cut))
    return traces


def make_config(root: Path, samples: int, sections: dict[str, Any]) -> Config:
    teacher = {
        "model": "/somewhere/teacher-1B",
        "system_prompt": "Think.",
        "sampling": {"samples": samples, "max_tokens": 64},
        "soft_labels": {"min_prob": 0.01, "max_support": 16},
        **sections.pop("teacher", {}),
    }
    source = {"source": "dataset", "path": "sums.jsonl", "prompt": "question", "reference": "answer"}
    prompts = [source | sections.pop("source", {})]
    return Config.model_validate(
        {"name": "sums", "root": str(root), "prompts": prompts, "teacher": teacher, **sections}
    )


@pytest.fixture
def make_job(tmp_path: Path) -> MakeJob:
    """Commit traces in parts of `part_rows`, in the order given by `shuffle`, and plan an assembly.

    Thinking is split by the config's tags where no `split` is given; `source` changes the config's prompt source.
    """

    def make(
        prompts: list[Prompt] | None = None,
        traces: list[Trace] | None = None,
        root: Path = tmp_path,
        part_rows: int = 7,
        shuffle: int | None = None,
        dropped: list[dict[str, Any]] | None = None,
        split: Splitter | None = None,
        **sections: Any,
    ) -> Assembly:
        prompts = make_prompts(10) if prompts is None else prompts
        traces = right_or_wrong(prompts, 4) if traces is None else traces
        samples = max(trace.sample_index for trace in traces) + 1
        if shuffle is not None:
            order = np.random.default_rng(shuffle).permutation(len(traces))
            traces = [traces[at] for at in order]
        store = TraceStore(root, TEACHER_ID)
        store.folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, len(traces), part_rows):
            store.commit(traces[start : start + part_rows])
        config = make_config(root, samples, sections)
        table = prompts_to_table(prompts)
        prompt_set = PromptSet(
            table, DROPPED_SCHEMA.empty_table().from_pylist(dropped or [], DROPPED_SCHEMA), {"sums": {"sha256": "5a"}}
        )
        finished = make_plan(table["prompt_id"], np.full(len(table), samples), store.index(), Retries(None)).finished
        return Assembly(
            config=config,
            prompts=prompt_set,
            store=store,
            finished=finished,
            teacher_id=TEACHER_ID,
            teacher={"model": {"folder_sha256": "77"}, "dtype": "bfloat16"},
            tokenizer={"sha256": "ab" * 32, "vocab_size": VOCAB_SIZE, "eos_token_id": 2},
            digest=corpus_digest(config, prompt_set.digest, TEACHER_ID, finished),
            split=split or partial(split_completion, reasoning=config.teacher.reasoning),
        )

    return make
