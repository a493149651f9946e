"""What corpora and versions hold, and whether they are whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.tagging import Tagged
from distill_data.report.lines import abridged, field, figure

_SHOWN = 72  # characters of a value of a row
_SPLITS = ("train", "validation")


@dataclass(frozen=True)
class CorpusListing:
    """What `corpus list` says of one corpus."""

    versions: list[int]
    tags: dict[str, int]  # the version that each names


def corpora_summary(corpora: dict[str, CorpusListing]) -> str:
    """A line per corpus; a version's tags stand behind it."""
    lines = []
    for name, listing in corpora.items():
        tags = {version: [tag for tag, at in listing.tags.items() if at == version] for version in listing.versions}
        shown = (f"v{version}" + (f" ({', '.join(names)})" if names else "") for version, names in tags.items())
        lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines) or "no corpora here: run `distill-data build CONFIG`, or give --root"


def tag_summary(moved: Tagged) -> str:
    """What a tag names now."""
    before = "" if moved.before is None else f"; before, it was v{moved.before}"
    now = "is removed" if moved.version is None else f"is v{moved.version}"
    return f"{moved.corpus}@{moved.tag} {now}{before}"


def corpus_summary(corpus: Corpus) -> str:
    """A version's provenance, counts and statistics, and its first row, abridged."""
    manifest = corpus.manifest
    lines = [f"{corpus.reference}  {manifest.created_at}  digest {manifest.digest[:16]}"]
    lines.append(field("teacher", f"{manifest.config['teacher']['model']} ({manifest.teacher_id})"))
    lines += [field(name, f"{count:,}") for name, count in manifest.counts.items()]
    lines += [field("dropped", f"{reason} {count:,}") for reason, count in manifest.dropped.items()]
    lines += [field("benchmark", f"{name}: {_touched(facts)}") for name, facts in manifest.prompts.benchmarks.items()]
    lines += [f"  {name:<28}{figure(value)}" for name, value in manifest.statistics.items()]
    lines += [f"  {file.path}  {file.rows:,} rows, {file.bytes:,} bytes" for file in manifest.files]
    row = corpus.head("traces", "train", 1).to_pylist()[0]
    lines.append("first row of train")
    lines += [f"  {name:<20}{abridged(repr(value), _SHOWN)}" for name, value in row.items()]
    return "\n".join(lines)


def _touched(facts: dict[str, Any]) -> str:
    """How much of a version's rows held text of a benchmark."""
    traces = f", {facts['traces']:,} traces" if "traces" in facts else ""
    return f"{facts['prompts']:,} prompts{traces} touched it"


def verification_summary(found: dict[str, Any]) -> str:
    """What `corpus verify` found."""
    if not found["ok"]:
        return "\n".join([f"{found['corpus']} is damaged:", *(f"  {problem}" for problem in found["problems"])])
    whole = f"{found['corpus']}: every file, checksum, schema and row alignment is as its manifest says"
    if found["texts_left_out"] is not None:
        return f"{whole}\n{field('left out', 'whether ids and words agree: ' + found['texts_left_out'])}"
    return f"{whole}; ids and words agree in the rows that were looked at"


def funnel(manifest: Manifest) -> list[tuple[str, int]]:
    """What became of the prompts and traces of a version, stage by stage: name and rows."""
    counts = manifest.counts
    dropped = [(f"dropped: {reason}", count) for reason, count in manifest.dropped.items()]
    asked = [("prompts read", counts["prompts"] + manifest.prompts.dropped), ("prompts asked", counts["prompts"])]
    return [*asked, ("traces", counts["traces"]), *dropped, *((name, counts[name]) for name in ("kept", *_SPLITS))]
