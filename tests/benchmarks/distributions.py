"""Real completions of the packaged model, and what is needed of their full-vocabulary distributions.

The teacher is the model in float32, the student the same model with noise in its weights. Nothing of the size
[tokens, vocabulary] outlives a trace: kept are the likeliest WIDTH tokens and, of the rest, the sums that errors of a
cut distribution are made of.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from distill_data.build import generate_missing, plan_build
from distill_data.config import Config
from distill_data.models import local_model_folder, resolve_model
from distill_data.prompts import load_prompts
from tests.benchmarks.workload import PACKAGED_MODEL, QUICKSTART

WIDTH = 256
NOISE = 0.1  # of every weight tensor's standard deviation
TASKS = [  # quickstart's sums, and questions that are answered in prose
    {"task": "chain_sum", "options": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}},
    {"task": "leg_counting"},
    {"task": "family_relationships"},
]
TRACE_COLUMNS = ["prompt_token_ids", "completion_token_ids"]


@dataclass(frozen=True)
class Distributions:
    """Teacher p and student q at N positions: at the teacher's likeliest tokens one by one, beyond them in sums."""

    top_ids: np.ndarray  # int32 [N, WIDTH], likeliest first
    log_p: np.ndarray  # float32 [N, WIDTH]
    log_q: np.ndarray  # float32 [N, WIDTH], of the same tokens
    beyond: np.ndarray  # float64 [N, 5]: sums over all other tokens of p, q, p², p q, q²
    sampled: np.ndarray  # float32 [N], log p of the token that the completion has
    kl: np.ndarray  # float64 [N], KL(p ‖ q) over the whole vocabulary


@dataclass(frozen=True)
class Measured:
    """Completions with their distributions, and the states that output heads make logits of."""

    traces: pa.Table  # TRACE_COLUMNS
    plain: Distributions
    sharp: Distributions  # teacher and student with their logits divided by 0.5
    states: np.ndarray  # float32 [2, N, hidden]: the teacher's, the student's
    heads: np.ndarray  # float32 [2, V, hidden]


def measured(cache: Path, tokens: int, model: str = PACKAGED_MODEL) -> Measured:
    """Completions of at least `tokens` tokens and their distributions; what `cache` holds is not made again."""
    cache.mkdir(parents=True, exist_ok=True)
    name = f"{Path(model).stem}-{tokens}"
    traces, arrays = cache / f"completions-{name}.parquet", cache / f"distributions-{name}.npz"
    if not traces.exists():
        pq.write_table(completions(tokens, model), traces)
    table = pq.read_table(traces)
    if not arrays.exists():
        np.savez(arrays, allow_pickle=False, **_observe(table, local_model_folder(resolve_model(model))))
    with np.load(arrays) as held:
        read = {name: held[name] for name in held.files}
    kinds = {
        kind: Distributions(**{field.name: read[f"{kind}_{field.name}"] for field in fields(Distributions)})
        for kind in ("plain", "sharp")
    }
    return Measured(table, **kinds, states=read["states"], heads=read["heads"])


def completions(tokens: int, model: str) -> pa.Table:
    """Our own build's traces, in an order that mixes the tasks, until there are enough tokens.

    Raises:
        SystemExit: there are not.
    """
    settings = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    each = -(-tokens // 150)
    settings["prompts"] = [{"source": "reasoning_gym", "seed": 7, "size": each, **task} for task in TASKS]
    settings["teacher"] |= {"model": model}
    settings["teacher"]["sampling"] |= {"samples": 1, "max_tokens": 256}
    with tempfile.TemporaryDirectory() as root:
        config = Config.model_validate(settings | {"root": root})
        planned, _ = generate_missing(plan_build(config, load_prompts(list(config.prompts))), lambda _: None)
        table = planned.store.read(planned.store.index(), [*TRACE_COLUMNS, "completion_tokens", "prompt_id"])
    table = table.sort_by("prompt_id")  # a hash
    enough = int(np.searchsorted(np.cumsum(table["completion_tokens"].to_numpy()), tokens)) + 1
    if enough > len(table):
        raise SystemExit(f"{len(table)} completions have fewer than {tokens} tokens: raise the number of prompts")
    return table.slice(0, enough).select(TRACE_COLUMNS)


def _observe(traces: pa.Table, folder: Path) -> dict[str, np.ndarray]:
    """All arrays of `Measured`, by name."""
    teacher, student = _load(folder), _load(folder)
    _add_noise(student)
    heads = [model.get_output_embeddings().weight for model in (teacher, student)]
    found: dict[str, list[Any]] = {"states": []}
    with torch.inference_mode():
        for ids, labels in _rows(traces):
            states = torch.stack([_states(model, ids, len(labels)) for model in (teacher, student)])
            found["states"].append(states.numpy())
            logits = [state @ head.T for state, head in zip(states, heads, strict=True)]
            for kind, factor in {"plain": 1.0, "sharp": 2.0}.items():
                log_p, log_q = (torch.log_softmax(factor * one, 1) for one in logits)
                seen = _summarise(log_p, log_q, labels)
                for field in fields(Distributions):
                    found.setdefault(f"{kind}_{field.name}", []).append(getattr(seen, field.name))
    joined = {name: np.concatenate(pieces, axis=int(name == "states")) for name, pieces in found.items()}
    return {**joined, "heads": np.stack([head.detach().numpy() for head in heads])}


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _add_noise(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight += NOISE * weight.std() * torch.randn(weight.shape, generator=generator)


def _rows(traces: pa.Table) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(prompt and completion ids, completion ids) of every trace."""
    for prompt, completion in zip(*(traces[name].to_pylist() for name in TRACE_COLUMNS), strict=True):
        yield torch.tensor([prompt + completion]), torch.tensor(completion)


def _states(model: Any, ids: torch.Tensor, tokens: int) -> torch.Tensor:
    """What the head turned into the distributions of the last `tokens` tokens: [tokens, hidden]."""
    return model.get_decoder()(ids[:, :-1], use_cache=False).last_hidden_state[0, -tokens:]


def _summarise(log_p: torch.Tensor, log_q: torch.Tensor, labels: torch.Tensor) -> Distributions:
    top, ids = log_p.topk(min(WIDTH, log_p.shape[1]), dim=1)
    p, q = log_p.exp(), log_q.exp()
    kl = (p * (log_p - log_q)).sum(1, dtype=torch.float64)
    rest_p, rest_q = (one.scatter(1, ids, 0.0) for one in (p, q))
    products = (rest_p, rest_q, rest_p**2, rest_p * rest_q, rest_q**2)
    beyond = torch.stack([one.sum(1, dtype=torch.float64) for one in products], dim=1)
    return Distributions(
        ids.int().numpy(),
        top.numpy(),
        log_q.gather(1, ids).numpy(),
        beyond.numpy(),
        log_p.gather(1, labels[:, None])[:, 0].numpy(),
        kl.numpy(),
    )
