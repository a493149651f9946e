"""The manifest: the file that makes a corpus version exist, and says what it is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from distill_data.errors import CorpusError
from distill_data.identity import sealed, unsealed
from distill_data.parquet import place
from distill_data.records import SCHEMA_VERSION

MANIFEST_NAME = "manifest.json"


class ManifestPart(BaseModel):
    """A part of a manifest: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PromptFacts(ManifestPart):
    """Where the prompts came from."""

    digest: str
    """Hash of the prompts, in order."""
    count: int
    """Prompts that the teacher was asked."""
    dropped: int
    """Prompts dropped before the teacher saw them."""
    sources: dict[str, dict[str, Any]]
    """Per source label, what pins its content."""
    benchmarks: dict[str, dict[str, Any]] = {}
    """Per benchmark, what pins its content, and how many prompts, and traces where they are compared, touch it."""


class FileFacts(ManifestPart):
    """One data file."""

    path: str
    """FAMILY/FILE in the version's folder."""
    rows: int
    """Rows in it."""
    bytes: int
    """Its size."""
    sha256: str
    """Hash of its bytes."""

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = path.split("/")
        if len(parts) != 2 or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"file path {path!r} is not of the form FAMILY/FILE inside the version's folder")
        return path


class MeasureFacts(ManifestPart):
    """How one measure of the traces is spread, and where the filter cuts."""

    name: str
    """What was measured."""
    unit: str
    """In what."""
    reason: str
    """The drop reason of a trace beyond the threshold."""
    below: float | None
    """Traces below this are dropped; null where the others are."""
    above: float | None
    """Traces above this are dropped; null where the others are."""
    edges: list[float]
    """Of the bins; the first and the last bin are open."""
    kept_counts: list[int]
    """Kept traces per bin; of large versions every k-th trace is counted."""
    dropped_counts: list[int]
    """Dropped traces per bin, for whatever reason."""


class Prior(ManifestPart):
    """What the teacher says about inputs without content, which its distributions are divided by."""

    system_prompt: str | None
    """Of the sources that it holds for."""
    inputs: int
    """How many it is the mean over."""
    probabilities: dict[str, float]
    """By label."""


class LabelFacts(ManifestPart):
    """The labels that a teacher chose among."""

    token_ids: dict[str, list[int]]
    """By label, in the config's order, its words as the teacher's tokens: a row's completion_token_ids are those of all
    labels, label after label, and its sampled_logprobs their log-probabilities."""
    priors: list[Prior]
    """Empty where nothing was calibrated."""


class Manifest(ManifestPart):
    """Everything that made a version, and what is in it."""

    schema_version: int
    """Version of the on-disk format."""
    name: str
    """Name of the corpus."""
    version: int
    """N of `NAME@vN`."""
    digest: str
    """Hash of everything that decides the rows; equal digests are equal versions."""
    created_at: str
    """ISO 8601, UTC."""
    config: dict[str, Any]
    """The resolved config."""
    prompts: PromptFacts
    """Where the prompts came from."""
    teacher_id: str
    """Who answered."""
    teacher: dict[str, Any]
    """The ingredients of the teacher's id."""
    tokenizer: dict[str, Any]
    """The teacher's tokenizer: sha256, vocab_size, eos_token_id, …"""
    packages: dict[str, str]
    """Versions of the packages that took part."""
    git_revision: str | None
    """Commit of this project's code; `-dirty` where files were changed; None outside a checkout."""
    counts: dict[str, int]
    """Rows at every stage: prompts that were asked, traces (failed ones included), kept = train + validation,
    and rejected: the rows of `rejected/`, dropped prompts included."""
    dropped: dict[str, int]
    """Rows in `rejected/` by drop reason, most frequent first."""
    statistics: dict[str, float | int | None]
    """Measures of the kept rows, and the pass rate of the judged ones."""
    measures: list[MeasureFacts] = []
    """Of the filters that are on: how what they measured is spread."""
    labels: Annotated[LabelFacts | None, Field(exclude_if=lambda labels: labels is None)] = None
    """Where the teacher classified: among what, and how it was calibrated."""
    files: list[FileFacts]
    """The data files."""


def manifest_text(manifest: Manifest) -> str:
    """The text of manifest.json, with a hash of its own content."""
    return json.dumps(sealed(manifest.model_dump(mode="json")), indent=2, ensure_ascii=False) + "\n"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json into a version's folder, durably."""
    place(manifest_text(manifest).encode(), folder / MANIFEST_NAME)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder.

    Raises:
        CorpusError: it is missing, damaged, or written by a newer distill-data.
    """
    file = folder / MANIFEST_NAME
    try:
        return parse_manifest(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError:
        raise CorpusError(
            f"{file} does not exist, so {folder} is no corpus version: run `distill-data build`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(_damaged(str(file), error)) from None


def parse_manifest(text: str, where: str) -> Manifest:
    """The manifest in a text that was read from `where`.

    Raises:
        CorpusError: it is damaged, or written by a newer distill-data.
    """
    try:
        content = json.loads(text)
        written_by = int(content["schema_version"])
        if written_by > SCHEMA_VERSION:
            raise CorpusError(
                f"{where} has schema version {written_by} and this distill-data reads up to {SCHEMA_VERSION}: "
                "upgrade distill-data"
            )
        return Manifest.model_validate(unsealed(content))
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise CorpusError(_damaged(where, error)) from None


def _damaged(where: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return f"{where} is damaged ({reason}): restore it from a backup or build again"
