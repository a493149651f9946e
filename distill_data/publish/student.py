"""A trained student as the files that are published, and student.json, which names it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from distill_data.corpus.manifest import read_manifest
from distill_data.corpus.versions import find_version
from distill_data.errors import DistillDataError, InputError
from distill_data.file_hash import file_sha256
from distill_data.identity import digest
from distill_data.models import MODEL_FILES, resolve_model
from distill_data.publish.publishable import RepoType
from distill_data.publish.release import ReleaseFile, made_file, public_json
from distill_data.publish_config import Publish

MARKER_NAME, CARD_NAME, TRAINED = "student.json", "README.md", "training.json"
# Beside what loads it: how it came about.
FACTS = (TRAINED, "corpus.json", "metrics.jsonl", "rounds.json", "evaluation*.json", "adapter/*.safetensors",
         "adapter/adapter_config.json")  # fmt: skip
_SMALL = 1 << 22  # bytes of a JSON file that is looked through for paths


@dataclass(frozen=True)
class StudentRelease:
    """Everything of one student that is published; see `publishable.Publishable`."""

    reference: str
    """Its name."""
    corpus: str
    """`NAME@vN` that it was trained on."""
    digest: str
    """Hash of the files that load it."""
    data: tuple[ReleaseFile, ...]
    card: ReleaseFile
    marker: ReleaseFile
    """student.json."""
    repo_type: RepoType = "model"

    @property
    def tag(self) -> str:
        """Its name."""
        return self.reference

    @property
    def title(self) -> str:
        """Of the commit."""
        return f"{self.reference}, trained on {self.corpus}"

    @property
    def files(self) -> tuple[ReleaseFile, ...]:
        """All files; student.json is the last."""
        return (*self.data, self.card, self.marker)

    def require_whole(self) -> None:
        """Nothing to look at: its files were read just now, for their hashes."""

    def owns(self, path: str) -> bool:
        """Whether a path at a destination is one of a student's, which the next one replaces or removes."""
        return any(_matches(path, pattern) for pattern in (*MODEL_FILES, *FACTS))

    def what_else(self, marker: str | None) -> str | None:
        """What a place holds instead of this student, by its student.json; None where it is this one."""
        if marker is None:
            return "no student"
        there = _read(marker)
        if there.get("digest") == self.digest:
            return None
        return (
            f"another {there.get('student')} (digest {str(there.get('digest'))[:12]}, this one has {self.digest[:12]})"
        )

    def why_not_next(self, marker: str) -> str | None:
        """Why this student cannot take the place of what has this student.json; None where it can."""
        theirs = str(_read(marker).get("corpus"))
        if corpus_family(theirs) == corpus_family(self.corpus):
            return None
        return f"holds a student of the corpus {theirs}, and this one is of {self.corpus}: choose another repository"

    def before(self, marker: str) -> None:
        """Unknown: a student.json lists no files, so that nobody can tell whether they are still that student's."""


def student_folder(root: str | Path, student: str | Path) -> Path:
    """The folder of a trained student, by its path or by its name under `<root>/students`.

    Raises:
        InputError: there is no such student, or it is not trained to its end.
    """
    for folder in (Path(root) / "students" / student, Path(student)):
        if (folder / TRAINED).is_file():
            return folder.absolute()
    raise InputError(f"there is no trained student {str(student)!r} under {root}: give its folder, or train it first")


def is_student(root: str | Path, reference: str) -> bool:
    """Whether a reference names a trained student, and no corpus."""
    return "@" not in reference and any(
        (folder / TRAINED).is_file() for folder in (Path(root) / "students" / reference, Path(reference))
    )


def make_student_release(folder: Path, to: Publish) -> StudentRelease:
    """The files of a student as they are published: safetensors alone, and without folders of this machine.

    Args:
        folder: the student's.
        to: where it goes: its card names a hub's repository, and the licence where one is set.

    Raises:
        ModelError: the folder is not whole.
        InputError: it does not say which corpus it was trained on.
    """
    resolve_model(str(folder))
    model, facts = _matching(folder, MODEL_FILES), _matching(folder, FACTS)
    corpus = _read((folder / "corpus.json").read_text("utf-8")) if (folder / "corpus.json").is_file() else {}
    if "corpus" not in corpus or not (folder / CARD_NAME).is_file():
        raise InputError(f"{folder} has no corpus.json or no README.md, so it is no student of distill-data: train one")
    loads = [_published(folder, path) for path in model]
    data = [*loads, *(_published(folder, path) for path in facts)]
    name = folder.name
    identity = digest([[file.path, file.sha256] for file in loads])
    marker = {"student": name, **corpus, "digest": identity, "corpus_digest": corpus.get("digest")}
    return StudentRelease(
        reference=name,
        corpus=corpus["corpus"],
        digest=identity,
        data=tuple(data),
        card=made_file(CARD_NAME, _card(folder, name, corpus["corpus"], to)),
        marker=made_file(MARKER_NAME, json.dumps(marker, indent=2) + "\n"),
    )


def corpus_family(reference: str) -> str:
    """The corpus of a reference; that of rounds belongs to the one that they began with."""
    return reference.partition("@")[0].removesuffix("-rounds")


def _matches(path: str, pattern: str) -> bool:
    """Whether a glob of `Path.glob`, without `**`, finds a path."""
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    return sorted(file.relative_to(folder) for file in found)


def _published(folder: Path, path: Path) -> ReleaseFile:
    """A file as it is, or, where its JSON names folders of this machine, without them."""
    source = folder / path
    size = source.stat().st_size
    if path.suffix == ".json" and size < _SMALL:
        content = json.loads(source.read_text("utf-8"))
        if (public := public_json(content)) != content:
            return made_file(path.as_posix(), json.dumps(public, indent=2) + "\n")
    return ReleaseFile(path.as_posix(), source, size, file_sha256(source))


def _card(folder: Path, name: str, corpus: str, to: Publish) -> str:
    """The student's card, with where it is and where its corpus is published."""
    from huggingface_hub import ModelCard

    card: Any = ModelCard((folder / CARD_NAME).read_text("utf-8"))
    if (dataset := _dataset_of(folder.parent.parent, corpus)) is not None:
        card.data.datasets = [dataset]
        card.text = card.text.replace(
            f"the corpus {corpus}", f"the corpus [{corpus}](https://hf.co/datasets/{dataset})"
        )
    if to.license is not None:
        card.data.license = to.license
    if to.repo_id is not None:
        card.text = card.text.replace("from_pretrained(FOLDER)", f'from_pretrained("{to.repo_id}", revision="{name}")')
    return str(card)


def _dataset_of(root: Path, corpus: str) -> str | None:
    """The dataset repository that the config of a student's corpus publishes to, where it is there to say so."""
    for reference in (corpus, corpus_family(corpus)):
        try:
            section = read_manifest(find_version(root, reference)).config.get("publish")
        except DistillDataError:
            continue
        if section is not None:
            return Publish.model_validate(section).repo_id
    return None


def _read(text: str) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
