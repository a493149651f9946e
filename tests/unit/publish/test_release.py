"""What of a manifest goes to a hub."""

from __future__ import annotations

from pathlib import Path

from distill_data.corpus.manifest import manifest_text, read_manifest
from distill_data.publish.release import public_manifest

FROZEN = Path(__file__).parents[1] / "formats" / "version_1"


def test_benchmarks_leave_their_folders_here() -> None:
    manifest = read_manifest(next(FROZEN.glob("corpora/*/v1")))
    there = {"exam": {"path": "/home/me/secret-project/exam.jsonl", "texts_sha256": "ab"}}
    manifest = manifest.model_copy(update={"prompts": manifest.prompts.model_copy(update={"benchmarks": there})})
    sent = public_manifest(manifest)
    assert sent.prompts.benchmarks == {"exam": {"path": "exam.jsonl", "texts_sha256": "ab"}}
    assert "/home/me" not in manifest_text(sent) and sent.digest == manifest.digest
