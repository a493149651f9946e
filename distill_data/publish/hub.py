"""Publish to a dataset repository of a Hugging Face hub; the only module that writes to a hub.

A version is one commit: files are sent first, unseen, and one commit on a known parent makes them appear together.
A commit on another parent is refused by the hub, and tried again on the new head. The tag is set last.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_data.corpus.manifest import MANIFEST_NAME, Manifest, parse_manifest
from distill_data.errors import PublishError
from distill_data.publish.release import Release, ReleaseFile, is_data_path
from distill_data.publish.report import Delivery
from distill_data.publish.retry import Say, status_of, with_retries
from distill_data.publish_config import Publish

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.hf_api import RepoFile

STALE_TRIES = 8  # commits of others that may come in between
_STALE = {409, 412}
_BRANCH = "main"


def publish_to_hub(release: Release, to: Publish, say: Say) -> Delivery:
    """Publish as one commit, checked and tagged.

    Raises:
        PublishError: the repository holds something else, rights are missing, or the hub does not answer.
    """
    from huggingface_hub import HfApi

    repository = _Repository(HfApi(endpoint=to.endpoint, library_name="distill-data"), str(to.repo_id), say)
    repository.require(to.private)
    address = f"{repository.api.endpoint}/datasets/{to.repo_id}/tree/{release.tag}"
    if (tagged := repository.tag_target(release.tag)) is not None:
        repository.require_same(release, tagged)
        return Delivery(address, tagged, already_there=True, bytes_sent=0)
    say(f"publish: {release.reference} to {to.to}")
    revision, sent = _commit_on_head(repository, release)
    repository.require_files(release, revision)
    repository.set_tag(release.tag, revision)
    return Delivery(address, revision, already_there=False, bytes_sent=sent)


def _commit_on_head(repository: _Repository, release: Release) -> tuple[str, int]:
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
    if remote is None or remote.size != file.bytes:
        return False
    return remote.lfs.sha256 == file.sha256 if remote.lfs is not None else remote.blob_id == file.git_oid()


@dataclass(frozen=True)
class _Repository:
    """A dataset repository, and who is told about waits."""

    api: HfApi
    repo_id: str
    say: Say

    def require(self, private: bool) -> None:
        """Have the repository; a public one is not taken for a private one."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self._read("looking at the repository", self.api.repo_info, revision=None)
        except RepositoryNotFoundError:
            self._write("making the repository", self.api.create_repo, private=private or None, exist_ok=True)
            return
        if private and not info.private:
            raise PublishError(
                f"hf://{self.repo_id} is public and private was asked for: make it private on the hub, or choose "
                "another name"
            )

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

    def manifest(self, revision: str) -> Manifest | None:
        """The manifest of a revision; None where it has none."""
        from huggingface_hub.errors import EntryNotFoundError

        with tempfile.TemporaryDirectory() as folder:
            where = {"filename": MANIFEST_NAME, "revision": revision, "cache_dir": folder}
            try:
                path = Path(self._read("reading the manifest", self.api.hf_hub_download, **where))
            except EntryNotFoundError:
                return None
            return parse_manifest(path.read_text(encoding="utf-8", errors="replace"), f"{self.repo_id}/{MANIFEST_NAME}")

    def require_same(self, release: Release, revision: str) -> None:
        """Refuse to take another version for this one."""
        there = self.manifest(revision)
        if there is None or (there.name, there.digest) != (release.manifest.name, release.manifest.digest):
            what = (
                "no version" if there is None else f"another {there.name}@v{there.version}, digest {there.digest[:12]}"
            )
            raise PublishError(
                f"hf://{self.repo_id} has a tag {release.tag} that is {what}, and this one has digest "
                f"{release.manifest.digest[:12]}; a published version never changes: publish to another repository"
            )

    def require_next(self, release: Release, head: str, there: dict[str, RepoFile]) -> None:
        """Refuse to replace what is not an earlier version of the same corpus."""
        place, ours = f"hf://{self.repo_id}", release.manifest
        if MANIFEST_NAME not in there:
            if foreign := next((path for path in sorted(there) if is_data_path(path)), None):
                raise PublishError(
                    f"{place} has a file {foreign} and no manifest.json, so it is not distill-data's to replace: "
                    "choose another repository"
                )
            return
        theirs = self.manifest(head)
        if theirs is None or theirs.name != ours.name:
            raise PublishError(f"{place} holds the corpus {getattr(theirs, 'name', '?')!r}: choose another repository")
        if theirs.version == ours.version and theirs.digest != ours.digest:
            raise PublishError(
                f"{place} holds another {release.reference} (digest {theirs.digest[:12]}, this one has "
                f"{ours.digest[:12]}): choose another repository"
            )
        if theirs.version > ours.version:
            raise PublishError(
                f"{place} is at v{theirs.version} already, and {release.tag} would take it back: publish versions in "
                "their order"
            )

    def commit(self, release: Release, head: str, there: dict[str, RepoFile]) -> str | None:
        """One commit that makes the repository's data this version's; None when the head is not that any more.

        A commit whose answer was lost is found by the next try: nothing is left to change then.
        """
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        ours = {file.path for file in release.files}
        additions = [_addition(file) for file in release.files]
        others = [path for path in there if is_data_path(path) and path not in ours]
        deletions = [CommitOperationDelete(path, is_folder=False) for path in sorted(others)]
        self._write("sending files", self.api.preupload_lfs_files, additions=additions, free_memory=False)
        title = f"{release.reference}: {release.manifest.counts['kept']:,} rows"
        try:
            done = self._write(
                "committing",
                self.api.create_commit,
                operations=[*additions, *deletions],
                commit_message=title,
                commit_description=f"digest {release.manifest.digest}",
                parent_commit=head,
            )
        except HfHubHTTPError as error:
            if status_of(error) in _STALE:
                return None
            raise
        return done.oid

    def require_files(self, release: Release, revision: str) -> None:
        """Check the hub's files at a revision against the release: names, sizes and hashes."""
        there = self.files(revision)
        wrong = [file.path for file in release.files if not _is_same(file, there.get(file.path))]
        ours = {file.path for file in release.files}
        wrong += [path for path in there if is_data_path(path) and path not in ours]
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
        return with_retries(what, lambda: call(repo_id=self.repo_id, repo_type="dataset", **arguments), self.say)

    _write = _read


def _addition(file: ReleaseFile) -> CommitOperationAdd:
    """The hub client's word for a file; its hash is known, so the file is not read for it."""
    from huggingface_hub import CommitOperationAdd

    source = file.source if isinstance(file.source, bytes) else str(file.source)
    addition = CommitOperationAdd(path_in_repo=file.path, path_or_fileobj=source)
    addition.upload_info.sha256 = bytes.fromhex(file.sha256)
    return addition
