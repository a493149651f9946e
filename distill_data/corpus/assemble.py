"""Assemble a corpus version: a first pass decides about every trace, a second one writes the files.

Both passes read the store in slices of bounded memory. Everything is written into a hidden staging folder,
synced, the manifest last, and renamed to `vN`: a reader sees a whole version or none. Builders of the same
corpus take turns by a lock that the kernel drops when its holder dies, so a staging folder that is there when
the lock is taken belongs to nobody.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from distill_data.corpus.assembly import Assembly, AssemblyProgress, Progress
from distill_data.corpus.card import write_card
from distill_data.corpus.decide import Decisions, decide, is_held_out
from distill_data.corpus.families import write_families
from distill_data.corpus.manifest import Manifest, PromptFacts, read_manifest, write_manifest
from distill_data.corpus.provenance import git_revision, package_versions
from distill_data.corpus.statistics import statistics
from distill_data.corpus.versions import corpus_folder, next_version, version_folder, version_with_digest
from distill_data.errors import CorpusError
from distill_data.filters import DROP_REASONS
from distill_data.parquet import sync_folder
from distill_data.records import SCHEMA_VERSION

__all__ = ["Assembly", "AssemblyProgress", "assemble"]

_LOCK_SECONDS = 600


def assemble(job: Assembly, on_progress: Progress) -> Manifest:
    """Write a new version and return its manifest; return the old one where a version has this digest.

    Raises:
        CorpusError: nothing is left to keep, or the folder cannot be written.
    """
    name, root = job.config.name, job.config.root
    folder = corpus_folder(root, name)
    with _turn(folder):
        if (number := version_with_digest(root, name, job.digest)) is not None:
            return read_manifest(version_folder(root, name, number))
        decisions = decide(job, on_progress)
        table = decisions.table
        dropped = _dropped(table, job.prompts.dropped)
        if not pc.any(pc.is_null(table["drop_reason"])).as_py():
            raise CorpusError(_nothing_kept(name, dropped))
        staging = folder / f".staging-{job.digest[:12]}-{os.getpid()}"
        try:
            manifest = _write(job, staging, (decisions, dropped), on_progress)
            return _publish(job, manifest, staging, folder)
        except OSError as error:
            raise CorpusError(
                f"cannot write {staging}: {error.strerror or error}: free space or fix the folder, then build again; "
                "every trace is kept"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Be the only builder of this corpus, and clear away what killed ones left."""
    lock = FileLock(folder / ".lock", timeout=_LOCK_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        for stale in folder.glob(".staging-*"):
            shutil.rmtree(stale)
    except Timeout:
        raise CorpusError(
            f"another process has been writing {folder} for {_LOCK_SECONDS} s: wait for it, then build again"
        ) from None
    except OSError as error:
        raise CorpusError(
            f"cannot write {folder}: {error.strerror or error}: set root: to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write(job: Assembly, staging: Path, decided: tuple[Decisions, dict[str, int]], on_progress: Progress) -> Manifest:
    """Write the data files into the staging folder; the manifest is returned, not yet written."""
    decisions, dropped = decided[0].table, decided[1]
    kept = decisions.filter(pc.is_null(decisions["drop_reason"]))
    away = is_held_out(kept, job.prompts.table["group_id"], job.config.validation)
    splits = {
        "train": kept.filter(pc.invert(away)),
        "validation": kept.filter(away),
        "rejected": decisions.filter(pc.is_valid(decisions["drop_reason"])),
    }
    files, labels = write_families(job, staging, splits, on_progress)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=job.config.name,
        version=0,
        digest=job.digest,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=job.config.of_a_version,
        prompts=PromptFacts(
            digest=job.prompts.digest,
            count=len(job.prompts.table),
            dropped=len(job.prompts.dropped),
            sources=job.prompts.revisions,
            benchmarks=_benchmarks(job, decided[0]),
        ),
        teacher_id=job.teacher_id,
        teacher=job.teacher,
        tokenizer=job.tokenizer,
        packages=package_versions(),
        git_revision=git_revision(),
        counts=_counts(job, splits),
        dropped=dropped,
        statistics=statistics(decisions, labels, files),
        measures=decided[0].measures.facts(decisions["drop_reason"], job.config.filters),
        labels=None if job.labelling is None else job.labelling.facts,
        files=files,
    )


def _benchmarks(job: Assembly, decisions: Decisions) -> dict[str, dict[str, Any]]:
    """Facts of every benchmark, with the traces that recite it where they were compared."""
    facts = job.prompts.benchmarks
    if job.benchmarks is None:
        return facts
    return {label: {**fact, "traces": decisions.recited[label]} for label, fact in facts.items()}


def _counts(job: Assembly, splits: dict[str, pa.Table]) -> dict[str, int]:
    train, validation = len(splits["train"]), len(splits["validation"])
    return {
        "prompts": len(job.prompts.table),
        "traces": len(job.finished),
        "kept": train + validation,
        "train": train,
        "validation": validation,
        "rejected": len(splits["rejected"]) + len(job.prompts.dropped),
    }


def _publish(job: Assembly, manifest: Manifest, staging: Path, folder: Path) -> Manifest:
    """Give the staging folder the next free number, its card, report and manifest, and rename it into place."""
    while True:
        number = next_version(folder)
        numbered = manifest.model_copy(update={"version": number})
        write_card(staging, numbered)
        if job.write_report is not None:
            job.write_report(staging, numbered)
        write_manifest(staging, numbered)
        try:
            os.rename(staging, folder / f"v{number}")
        except OSError:
            # Where locks do not reach (some network folders) another builder may have taken the number.
            if (folder / f"v{number}").exists():
                continue
            raise
        sync_folder(folder)
        return numbered


def _dropped(decisions: pa.Table, prompts: pa.Table) -> dict[str, int]:
    """Dropped rows by reason, most frequent first."""
    counts: Counter[str] = Counter()
    for column in (decisions["drop_reason"].drop_null(), prompts["drop_reason"]):
        for entry in pc.value_counts(column).to_pylist():
            counts[entry["values"]] += entry["counts"]
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _nothing_kept(name: str, dropped: dict[str, int]) -> str:
    if not dropped:
        return f"corpus {name!r} would be empty: no trace is finished: run `distill-data build` to the end"
    reasons = "; ".join(
        f"{count} {reason} ({DROP_REASONS[reason]})" if reason in DROP_REASONS else f"{count} {reason}"
        for reason, count in dropped.items()
    )
    return (
        f"corpus {name!r} would be empty, every row was dropped: {reasons}: loosen filters: or keep:, raise "
        "teacher.sampling.samples or max_tokens, or give easier prompts"
    )
