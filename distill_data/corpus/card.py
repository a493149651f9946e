"""The dataset card: a version's README.md, for people and for `datasets.load_dataset`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from distill_data.corpus.manifest import Manifest
from distill_data.corpus.write import public_model_name
from distill_data.filters import DROP_REASONS
from distill_data.teacher_config import DRAWS
from distill_data.templates import templates

CARD_NAME = "README.md"

_KEPT_LINES = """\
ends = np.cumsum(row["support_counts"])
kept = slice(ends[t] - row["support_counts"][t], ends[t])
ids, p = np.array(row["support_ids"][kept]), np.exp(np.array(row["support_logprobs"][kept], np.float64))
"""
REBUILD_LINES = f"""\
{_KEPT_LINES}distribution = np.full(vocab_size, max(0.0, 1.0 - p.sum()) / (vocab_size - len(ids)))  # tail
distribution[ids] = p"""
"""Rebuild the distribution over the vocabulary behind completion token `t` of a soft-labels `row`."""
DRAWN_LINES = f"""\
{_KEPT_LINES}distribution = np.zeros(vocab_size)
distribution[ids] = np.maximum(p, 1 / draws)  # in expectation over the draws"""
"""The same where soft labels are sampled: an estimate."""

_ROUNDED = {
    "graded": "rounded with fewer bits the less likely the token: by at most 1/32 of log p where p > 0.0003",
    "fine": "rounded with fewer bits the less likely the token: by at most 1/128 of log p where p > 0.0003",
    "float16": "in full float16",
}
_SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M")]  # fmt: skip


def write_card(folder: Path, manifest: Manifest) -> None:
    """Write README.md into a version's folder, durably."""
    with open(folder / CARD_NAME, "w", encoding="utf-8") as file:
        file.write(render_card(manifest))
        file.flush()
        os.fsync(file.fileno())


def render_card(manifest: Manifest, repo_id: str | None = None, license: str | None = None) -> str:
    """The card of a version: YAML header with the configs `traces`, `soft_labels` and `rejected`, then Markdown.

    Args:
        manifest: the version's.
        repo_id: the hub's repository that it is published to; None for a folder.
        license: of the version; None for what its config says.
    """
    cards = templates(Path(__file__).parent, escape=False, keep_trailing_newline=True)
    template = cards.get_template("card.md.jinja" if manifest.labels is None else "label_card.md.jinja")
    teacher = manifest.config["teacher"]
    sampled = teacher["soft_labels"].get("kind") == "sampled"
    return template.render(
        m=manifest,
        place=repo_id or ".",
        license=license or _license(manifest),
        sources=_sources(manifest),
        of_hub=_hub_sources(manifest),
        splits=[split for split in ("train", "validation") if manifest.counts[split]],
        size=next((name for limit, name in _SIZES if manifest.counts["kept"] < limit), "n>100M"),
        teacher=teacher,
        overridden=_overridden(manifest),
        model=public_model_name(teacher["model"]),
        explain=DROP_REASONS,
        judges=_judges(manifest.config),
        draws=teacher["soft_labels"].get("draws", DRAWS) if sampled else None,
        rebuild=DRAWN_LINES if sampled else REBUILD_LINES,
        rounding=_ROUNDED[teacher["soft_labels"].get("rounding", "graded")],
        bytes={
            family: sum(file.bytes for file in manifest.files if file.path.startswith(f"{family}/"))
            for family in ("traces", "soft_labels")
        },
        total_bytes=sum(file.bytes for file in manifest.files),
    )


def _sources(manifest: Manifest) -> dict[str, str]:
    """By name of the source, what exactly its prompts were read from, and under which licence, in words."""
    pins, sources = manifest.prompts.sources.items(), manifest.config["prompts"]  # both in the config's order
    return {
        name: f"{_origin(pin)} ({source.get('license') or 'no licence named'})"
        for (name, pin), source in zip(pins, sources, strict=True)
    }


def _origin(pin: dict[str, Any]) -> str:
    """What pins a source; of a path on this machine its last name."""
    path = pin.get("path")
    shown = {key: value for key, value in pin.items() if key not in ("path", "fingerprint") and value not in (None, {})}
    words = [f"{key} {json.dumps(value) if isinstance(value, dict) else value}" for key, value in shown.items()]
    if path is not None:
        words.insert(0, f"`{path if _is_public(path) else Path(path).name}`")
    return ", ".join(words) or "unknown"


def _is_public(path: str) -> bool:
    return not path.startswith(("/", "~", "."))


def _hub_sources(manifest: Manifest) -> list[str]:
    """Hub ids of the datasets that prompts come from: those of a commit."""
    pins = manifest.prompts.sources.values()
    return sorted({pin["path"] for pin in pins if pin.get("revision") and _is_public(pin["path"])})


def _license(manifest: Manifest) -> str:
    """The config's own, else that of all sources, else `other`."""
    of_sources = {source.get("license") for source in manifest.config["prompts"]}
    agreed = next(iter(of_sources)) if len(of_sources) == 1 else None
    return (manifest.config.get("publish") or {}).get("license") or agreed or "other"


def _judges(config: dict[str, Any]) -> list[str]:
    """Names of the verifiers that the config's sources are judged by, each once."""
    judges = [source.get("judge") or config["judge"] for source in config["prompts"]]
    return list(dict.fromkeys(judge["verifier"] for judge in judges if judge))


def _overridden(manifest: Manifest) -> dict[str, str]:
    """By name of the source, what it samples otherwise, in words."""
    sources = zip(manifest.prompts.sources, manifest.config["prompts"], strict=True)  # both in the config's order
    return {
        name: ", ".join(f"{key} {value}" for key, value in source["sampling"].items() if value is not None)
        for name, source in sources
        if source["sampling"]
    }
