"""Publish one version, or one student: verify it here, then take it to its destination."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from distill_data.corpus.read import Corpus, open_corpus
from distill_data.corpus.tagging import stable_moves
from distill_data.corpus.tags import STABLE
from distill_data.corpus.versions import parse_reference
from distill_data.errors import DistillDataError, InputError, PublishError, reason_of
from distill_data.publish.hub import publish_to_hub
from distill_data.publish.publishable import Publishable
from distill_data.publish.release import make_release
from distill_data.publish.report import Delivery, PublishedFile, PublishReport
from distill_data.publish.retry import Say
from distill_data.publish.secrets import censored_logs, without_secrets
from distill_data.publish.student import make_student_release, student_folder
from distill_data.publish.urls import publish_to_url
from distill_data.publish_config import Publish


def publish_version(
    root: str | Path,
    corpus: str,
    destination: str | Publish,
    *,
    private: bool = False,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> PublishReport:
    """Publish a version, unless it is there already.

    It appears at once or not at all: on a hub as one commit that replaces the files of the version before and is
    tagged `vN` when the hub's files were checked; elsewhere in a folder `vN` with its manifest last. What a publish
    that was killed has sent is not sent again. Tokens come from the environment or the hub's own login.

    Args:
        root: folder that holds the corpus.
        corpus: `NAME@vN`, or `NAME` for the version that is promoted.
        destination: a config's section `publish`, or its `to:`, such as `hf://OWNER/NAME`.
        private: only the owner sees a hub repository that is made.
        dry_run: look at nothing there and write nothing; the report has the files and the card.
        say: told what happens, a line at a time.

    Raises:
        InputError: the destination cannot be used, or no version is promoted and none is named.
        CorpusError: there is no such version, or it is damaged and not there yet.
        PublishError: it cannot be published there, or not now.
    """
    to = _section(destination, private)
    opened = _chosen(corpus, root, say)
    return _published(make_release(opened, to), to, dry_run, say)


def publish_student(
    root: str | Path,
    student: str | Path,
    destination: str | Publish,
    *,
    private: bool = False,
    dry_run: bool = False,
    say: Say = lambda line: None,
) -> PublishReport:
    """Publish a trained student, unless it is there already; as `publish_version` does, to a hub's model repository.

    The tag is the student's name. Only what loads it and says how it came about is published: safetensors, config,
    tokenizer, card, figures. A student of another corpus is not replaced.

    Args:
        root: folder that holds the student.
        student: its folder, or its name under `<root>/students`.
        destination: a config's section `student.publish`, or its `to:`.
        private: only the owner sees a hub repository that is made.
        dry_run: look at nothing there and write nothing; the report has the files and the card.
        say: told what happens, a line at a time.

    Raises:
        InputError: there is no such student, or the destination cannot be used.
        ModelError: its folder is not whole.
        PublishError: it cannot be published there, or not now.
    """
    to = _section(destination, private)
    return _published(make_student_release(student_folder(root, student), to), to, dry_run, say)


def _published(release: Publishable, to: Publish, dry_run: bool, say: Say) -> PublishReport:
    if dry_run:
        release.require_whole()
    return _report(release, to, None if dry_run else _deliver(release, to, say))


def destination_of(corpus: str, root: str | Path) -> Publish:
    """Where the config that a version was built with publishes.

    Raises:
        InputError: it says nothing about that.
    """
    section = open_corpus(corpus, root).manifest.config.get("publish")
    if section is None:
        raise InputError(f"{corpus} was built without a publish: section: say where with --to hf://OWNER/NAME")
    return Publish.model_validate(section)


def _section(destination: str | Publish, private: bool) -> Publish:
    """The destination as the config's section says it."""
    section = destination if isinstance(destination, Publish) else None
    try:
        values = {"to": destination} if section is None else section.model_dump()
        return Publish.model_validate(values | ({"private": True} if private else {}))
    except ValidationError as error:
        problem = error.errors()[0]
        raise InputError(problem["msg"].removeprefix("Value error, ")) from None


def _chosen(reference: str, root: str | Path, say: Say) -> Corpus:
    """The version that a reference names; a name alone means the one that is promoted."""
    name, asked = parse_reference(reference)
    corpus = open_corpus(reference, root)
    moves = stable_moves(str(root), name)
    stable = moves[-1].version if moves else None
    if asked is None and stable is None:
        raise InputError(
            f"no version of {name} is promoted: look why (`distill-data corpus list`), or name the version to publish, "
            f"such as {corpus.reference}"
        )
    if asked is None:
        return open_corpus(f"{name}@{STABLE}", root)
    if moves and corpus.version not in {move.version for move in moves}:
        say(f"publish: {corpus.reference} was never promoted; {STABLE} is {f'v{stable}' if stable else 'no version'}")
    return corpus


def _deliver(release: Publishable, to: Publish, say: Say) -> Delivery:
    """Take a release to its destination; whatever a client raises becomes one line without secrets."""
    publish = publish_to_url if to.repo_id is None else publish_to_hub
    try:
        with censored_logs():
            return publish(release, to, say)
    except DistillDataError:
        raise
    except Exception as error:  # clients raise what they like, with signed addresses and headers in it
        what = without_secrets(f"{type(error).__name__}: {reason_of(error)}")
        raise PublishError(
            f"{release.reference} cannot be published to {to.to} ({what}): check the address and your "
            "rights there (HF_TOKEN, or `hf auth login`), then run the same command again"
        ) from None


def _report(release: Publishable, to: Publish, delivery: Delivery | None) -> PublishReport:
    return PublishReport(
        corpus=release.reference,
        destination=to.to,
        digest=release.digest,
        tag=release.tag,
        files=tuple(PublishedFile(file.path, file.bytes) for file in release.files),
        bytes=sum(file.bytes for file in release.files),
        dry_run=delivery is None,
        card=release.card.content().decode() if delivery is None else None,
        delivery=delivery,
    )
