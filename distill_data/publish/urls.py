"""Publish to a URL that fsspec writes to: files first, each read back, the marker last and only where none is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from distill_data.errors import PublishError, reason_of
from distill_data.parquet import place, sync_folder
from distill_data.publish.publishable import Publishable
from distill_data.publish.release import ReleaseFile
from distill_data.publish.report import Delivery
from distill_data.publish.retry import Say, with_retries
from distill_data.publish.secrets import without_secrets
from distill_data.publish_config import Publish

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_BLOCK = 1 << 20
_CLAIM = "publishing.json"  # there while a release is on its way
T = TypeVar("T")


def publish_to_url(release: Publishable, to: Publish, say: Say) -> Delivery:
    """Publish into the folder under a URL that the release's tag names.

    Raises:
        PublishError: something else has this name there, or the store cannot be written.
        CorpusError: the release is not whole; nothing was written then.
    """
    store, base = _open(to.to)
    folder, address = f"{base}/{release.tag}", f"{to.to}/{release.tag}"

    def patiently(what: str, step: Callable[..., T], *more: Any) -> T:
        return with_retries(f"{what} {address}", lambda: step(store, folder, release, *more), say)

    if patiently("looking at", _is_there, address):
        return Delivery(address, None, already_there=True, bytes_sent=0)
    release.require_whole()
    say(f"publish: {release.reference} to {address}")
    patiently("claiming", _claim, address)
    if patiently("looking at", _is_there, address):  # by somebody whose claim ended meanwhile
        patiently("leaving", _unclaim)
        return Delivery(address, None, already_there=True, bytes_sent=0)
    sent = sum(_bring(store, folder, file, say) for file in release.files if file is not release.marker)
    patiently("clearing", _remove_others)
    is_ours = patiently("finishing", _finish, address)
    patiently("leaving", _unclaim)
    patiently("checking", _require_all, address)
    return Delivery(address, None, not is_ours, sent + release.marker.bytes * is_ours)


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    """A store without caches, and the path in it."""
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(url, skip_instance_cache=True, use_listings_cache=False)
    except (ImportError, ValueError, TypeError) as error:
        raise PublishError(
            f"nothing here writes to {url} ({without_secrets(reason_of(error))}): install the package, for s3:// "
            "`pip install 'distill-data[s3]'`, or give another URL"
        ) from None


def _is_there(store: AbstractFileSystem, folder: str, release: Publishable, address: str) -> bool:
    """Whether a folder holds this release.

    Raises:
        PublishError: it holds another one.
    """
    try:
        content: Any = store.cat_file(f"{folder}/{release.marker.path}")
    except FileNotFoundError:
        return False
    if (what := release.what_else(content.decode(errors="replace"))) is not None:
        raise PublishError(f"{address} holds {what}, and a published version never changes: publish to another place")
    return True


def _claim(store: AbstractFileSystem, folder: str, release: Publishable, address: str) -> None:
    """Have this folder for this release: two that share a tag would write into each other's files.

    Raises:
        PublishError: another one has it.
    """
    path, ours = f"{folder}/{_CLAIM}", {"publishing": release.reference, "digest": release.digest}
    if _create(store, path, json.dumps(ours).encode()):
        return
    try:
        theirs = json.loads(store.cat_file(path))
    except FileNotFoundError:
        return  # it was finished just now
    if theirs != ours:
        raise PublishError(
            f"{address} is being filled with another {release.reference} (digest {theirs['digest'][:12]}, this one has "
            f"{release.digest[:12]}): publish to another place, or, if that publish is dead, remove {address}/{_CLAIM}"
        )


def _unclaim(store: AbstractFileSystem, folder: str, release: Publishable) -> None:
    with suppress(FileNotFoundError):
        store.rm_file(f"{folder}/{_CLAIM}")


def _finish(store: AbstractFileSystem, folder: str, release: Publishable, address: str) -> bool:
    """Write the marker; whether it was this publish that did."""
    if _create(store, f"{folder}/{release.marker.path}", release.marker.content()):
        return True
    _is_there(store, folder, release, address)  # somebody else was faster; with another release, that is an error
    return False


def _bring(store: AbstractFileSystem, folder: str, file: ReleaseFile, say: Say) -> int:
    """Have a file there, as its bytes read back show; the bytes that had to be sent.

    Raises:
        PublishError: what comes back is not what was sent.
    """
    path = f"{folder}/{file.path}"

    def bring() -> int:
        if _has(store, path, file):
            return 0
        _put(store, path, file)
        if not _has(store, path, file):
            raise PublishError(
                f"{path} does not read back as it was sent: check the store, then run the same command again"
            )
        return file.bytes

    return with_retries(f"sending {file.path}", bring, say)


def _has(store: AbstractFileSystem, path: str, file: ReleaseFile) -> bool:
    """Whether a file is there with its size and hash; the whole file is read."""
    try:
        if store.info(path)["size"] != file.bytes:
            return False
        sha256 = hashlib.sha256()
        opened: Any = store.open(path, "rb")
        with opened as stream:
            while block := stream.read(_BLOCK):
                sha256.update(block)
    except FileNotFoundError:
        return False
    return sha256.hexdigest() == file.sha256


def _is_local(store: AbstractFileSystem) -> bool:
    return "file" in (store.protocol if isinstance(store.protocol, tuple) else (store.protocol,))


def _put(store: AbstractFileSystem, path: str, file: ReleaseFile) -> None:
    if _is_local(store):
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        place(file.source if isinstance(file.source, bytes) else pa.memory_map(str(file.source)).read_buffer(), target)
        return
    if isinstance(file.source, bytes):
        store.pipe_file(path, file.source)
    else:
        store.put_file(str(file.source), path)


def _create(store: AbstractFileSystem, path: str, content: bytes) -> bool:
    """Write a file unless there is one; False where there is. Conditional in one step where the store can do that."""
    try:
        if _is_local(store):
            _create_local(Path(path), content)
        else:
            store.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    return True


def _create_local(target: Path, content: bytes) -> None:
    """A whole file under a name that nothing has; FileExistsError where something has."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.create")
    place(content, temporary)
    try:
        os.link(temporary, target)
    finally:
        temporary.unlink()
    sync_folder(target.parent)


def _remove_others(store: AbstractFileSystem, folder: str, release: Publishable) -> None:
    """Remove data files that an unfinished publish of something else left; without a marker they are nothing."""
    ours = {file.path for file in release.files}
    for path in store.find(folder):
        inside = path.removeprefix(f"{folder}/")
        if release.owns(inside) and inside not in ours:
            store.rm_file(path)


def _require_all(store: AbstractFileSystem, folder: str, release: Publishable, address: str) -> None:
    """A last look at every size, with the marker there."""
    for file in release.files:
        if (size := store.info(f"{folder}/{file.path}")["size"]) != file.bytes:
            raise PublishError(
                f"{address}/{file.path} has {size:,} bytes instead of {file.bytes:,}: somebody else writes there too; "
                f"remove {address} and publish again"
            )
