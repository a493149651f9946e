"""Publish to a repository of a Hugging Face hub; the only module that writes to a hub.

A version, or a student, is one commit: files are sent first, unseen, and one commit on a known parent makes them appear
together. A commit on another parent is refused by the hub, and tried again on the new head. The tag is set last.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_data.errors import PublishError
from distill_data.publish.publishable import Publishable, RepoType
from distill_data.publish.release import ReleaseFile
from distill_data.publish.report import Delivery
from distill_data.publish.retry import Say, status_of, with_retries
from distill_data.publish_config import Publish

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

STALE_TRIES = 8  # commits of others that may come in between
_STALE = {409, 412}
_BRANCH = "main"


def publish_to_hub(release: Publishable, to: Publish, say: Say) -> Delivery:
    """Publish as one commit, checked and tagged.

    Raises:
        PublishError: the repository holds something else, rights are missing, or the hub does not answer.
        CorpusError: the release is not whole; nothing was written then.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=to.endpoint, library_name="distill-data")
    repository = _Repository(api, str(to.repo_id), release.repo_type, say)
    exists = repository.is_there(to.private)
    kind = "datasets/" if release.repo_type == "dataset" else ""
    address = f"{api.endpoint}/{kind}{to.repo_id}/tree/{release.tag}"
    if exists and (tagged := repository.tag_target(release.tag)) is not None:
        repository.require_same(release, tagged)
        return Delivery(address, tagged, already_there=True, bytes_sent=0)
    release.require_whole()
    if not exists:
        repository.make(to.private)
    say(f"publish: {release.reference} to {to.to}")
    revision, sent = _commit_on_head(repository, release)
    repository.require_files(release, revision)
    repository.set_tag(release.tag, revision)
    return Delivery(address, revision, already_there=False, bytes_sent=sent)


def _commit_on_head(repository: _Repository, release: Publishable) -> tuple[str, int]:
    """Commit on the newest head, again when somebody else's commit came in between: (revision, bytes that are new)."""
    for _ in range(STALE_TRIES):
        head = repository.head()
        there = repository.files(head)
        repository.require_next(release, head, there)
        sent = sum(file.bytes for file in release.files if not _is_same(file, there.get(file.path)))
        revision = repository.commit(release, head, there)
        if revision is not None:
            return revision, sent
        repository.say(f"publish: {repository.repo_id} was changed meanwhile; trying again on its new head")
    raise PublishError(
        f"hf://{repository.repo_id} was changed by others {STALE_TRIES} times meanwhile: run the same command again"
    )


def _is_same(file: ReleaseFile, remote: RepoFile | None) -> bool:
    """Whether the hub's file has the same bytes, as its hash says."""
    if remote is None or remote.lfs is not None:
        return _holds(remote, file.bytes, file.sha256)
    return remote.size == file.bytes and remote.blob_id == file.git_oid()


def _holds(remote: RepoFile | None, size: int, sha256: str) -> bool:
    """Whether the hub's file, if it is a large one, has these bytes."""
    return remote is not None and remote.size == size and remote.lfs is not None and remote.lfs.sha256 == sha256


@dataclass(frozen=True)
class _Repository:
    """A repository, and who is told about waits."""

    api: HfApi
    repo_id: str
    repo_type: RepoType
    say: Say

    def is_there(self, private: bool) -> bool:
        """Whether there is such a repository; a public one is not taken for a private one."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._read("looking at the repository", self.api.repo_info, revision=None)
        except RepositoryNotFoundError:
            return False
        if private and not info.private:
            raise PublishError(
                f"hf://{self.repo_id} is public and private was asked for: make it private on the hub, or choose "
                "another name"
            )
        return True

    def make(self, private: bool) -> None:
        """Make the repository."""
        self._write("making the repository", self.api.create_repo, private=private or None, exist_ok=True)

    def head(self) -> str:
        """The newest commit."""
        return self._read("looking at the repository", self.api.repo_info, revision=_BRANCH).sha

    def tag_target(self, tag: str) -> str | None:
        """The commit that a tag names; None where there is no such tag."""
        refs = self._read("reading tags", self.api.list_repo_refs)
        return next((ref.target_commit for ref in refs.tags if ref.name == tag), None)

    def files(self, revision: str) -> dict[str, RepoFile]:
        """All files of a revision by path."""
        from huggingface_hub.hf_api import RepoFile

        def read(**where: Any) -> dict[str, RepoFile]:
            entries = self.api.list_repo_tree(recursive=True, **where)
            return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

        return self._read("reading the list of files", read, revision=revision)

    def marker(self, name: str, revision: str) -> str | None:
        """The text of a revision's marker; None where it has none."""
        from huggingface_hub.errors import EntryNotFoundError

        with tempfile.TemporaryDirectory() as folder:
            where = {"filename": name, "revision": revision, "cache_dir": folder}
            try:
                path = Path(self._read(f"reading {name}", self.api.hf_hub_download, **where))
            except EntryNotFoundError:
                return None
            return path.read_text(encoding="utf-8", errors="replace")

    def require_same(self, release: Publishable, revision: str) -> None:
        """Refuse to take something else for this release."""
        if (what := release.what_else(self.marker(release.marker.path, revision))) is not None:
            raise PublishError(
                f"hf://{self.repo_id} has a tag {release.tag} that is {what}; a published version never changes: "
                "publish to another repository"
            )

    def require_next(self, release: Publishable, head: str, there: dict[str, RepoFile]) -> None:
        """Refuse to replace what this release does not follow; what it replaces keeps its tag."""
        name = release.marker.path
        if name not in there:
            if foreign := next((path for path in sorted(there) if release.owns(path)), None):
                raise PublishError(
                    f"hf://{self.repo_id} has a file {foreign} and no {name}, so it is not distill-data's to replace: "
                    "choose another repository"
                )
            return
        if (marker := self.marker(name, head)) is None:
            return
        if (problem := release.why_not_next(marker)) is not None:
            raise PublishError(f"hf://{self.repo_id} {problem}")
        self._tag_before(release, marker, head, there)

    def _tag_before(self, release: Publishable, marker: str, head: str, there: dict[str, RepoFile]) -> None:
        """Set the tag of what is replaced, where its publish was killed between commit and tag: nothing else would."""
        if (before := release.before(marker)) is None:
            return
        tag, files = before
        if tag == release.tag or self.tag_target(tag) is not None:
            return
        if all(_holds(there.get(file.path), file.bytes, file.sha256) for file in files):
            self.say(f"publish: {tag} of hf://{self.repo_id} had no tag yet; setting it")
            self.set_tag(tag, head)

    def commit(self, release: Publishable, head: str, there: dict[str, RepoFile]) -> str | None:
        """One commit that makes the repository's files this release's; None when the head is not that any more.

        A commit whose answer was lost is found by the next try: nothing is left to change then.
        """
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        ours = {file.path for file in release.files}
        additions = [_addition(file) for file in release.files]
        others = [path for path in there if release.owns(path) and path not in ours]
        deletions = [CommitOperationDelete(path, is_folder=False) for path in sorted(others)]
        self._write("sending files", self.api.preupload_lfs_files, additions=additions, free_memory=False)
        try:
            done = self._write(
                "committing",
                self.api.create_commit,
                operations=[*additions, *deletions],
                commit_message=release.title,
                commit_description=f"digest {release.digest}",
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            if status_of(error) in _STALE:
                return None
            raise
        return done.oid

    def require_files(self, release: Publishable, revision: str) -> None:
        """Check the hub's files at a revision against the release: names, sizes and hashes."""
        there = self.files(revision)
        wrong = [file.path for file in release.files if not _is_same(file, there.get(file.path))]
        ours = {file.path for file in release.files}
        wrong += [path for path in there if release.owns(path) and path not in ours]
        if wrong:
            raise PublishError(
                f"hf://{self.repo_id} at {revision[:12]} does not have {wrong[0]} as it was sent, so it is not tagged "
                f"{release.tag}: run the same command again"
            )

    def set_tag(self, tag: str, revision: str) -> None:
        """Tag a commit; a tag that names it already is as good."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            self._write("setting the tag", self.api.create_tag, tag=tag, revision=revision)
        except HfHubHTTPError as error:
            if status_of(error) != 409 or (there := self.tag_target(tag)) is None:
                raise
            if there != revision:
                raise PublishError(
                    f"hf://{self.repo_id} got a tag {tag} for {there[:12]} meanwhile: run the same command again"
                ) from None

    def _read(self, what: str, call: Any, **arguments: Any) -> Any:
        return with_retries(what, lambda: call(repo_id=self.repo_id, repo_type=self.repo_type, **arguments), self.say)

    _write = _read


def _addition(file: ReleaseFile) -> CommitOperationAdd:
    """The hub client's word for a file; its hash is known, so the file is not read for it."""
    from huggingface_hub import CommitOperationAdd

    source = file.source if isinstance(file.source, bytes) else str(file.source)
    addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=source)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)
    return addition
