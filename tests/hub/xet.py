"""A xet store in a folder, as hf_xet itself keeps it behind a `local://` address; the loopback hub hands it out.

Clients send chunks to it and a shard that names every file: its xet hash, and its sha256. The hub knows files by their
sha256, as commits name them, so it looks them up in the shards, as the real one does.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HEADER = 48  # of a shard, and the size of every entry in it
_WITH_CHECKS, _WITH_SHA256 = 1 << 31, 1 << 30  # flags of a file: more entries follow


@dataclass(frozen=True)
class XetStore:
    """The chunks of a hub."""

    folder: Path

    @property
    def url(self) -> str:
        return f"local://{self.folder}"

    def token(self) -> tuple[dict[str, str], dict[str, Any]]:
        """What a client is told: as headers for huggingface_hub, as JSON for hf_xet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        end = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": self.url,
            "X-Xet-Access-Token": "short-lived",
            "X-Xet-Token-Expiration": str(end),
        }
        return headers, {"casUrl": self.url, "accessToken": "short-lived", "exp": end}

    def hash_of(self, sha256: str) -> str | None:
        """The xet hash of the file with this sha256; None where no shard has one."""
        return next((name for shard in self._shards() for name, other in _files(shard) if other == sha256), None)

    def bytes(self) -> int:
        """Compressed chunks in it."""
        return sum(
            file.stat().st_size for file in self.folder.rglob("xorbs/xorbs/default.*") if file.suffix != ".tagset"
        )

    def read(self, sha256: str, size: int) -> bytes:
        """A file, put together from its chunks."""
        import hf_xet

        name = self.hash_of(sha256)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "file")
            with vars(hf_xet)["XetSession"]().new_file_download_group(endpoint=self.url) as group:
                group.start_download_file(vars(hf_xet)["XetFileInfo"](name, size), str(target))
            content = target.read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        return content

    def _shards(self) -> Iterator[bytes]:
        for file in self.folder.rglob("xorbs/shards/*.mdb"):
            yield file.read_bytes()


def _files(shard: bytes) -> Iterator[tuple[str, str]]:
    """(xet hash, sha256) of the files that a shard names."""
    at = _HEADER
    while shard[at : at + 32] != b"\xff" * 32:
        name = shard[at : at + 32]
        flags, entries = struct.unpack_from("<II", shard, at + 32)
        at += _HEADER * (1 + entries * (2 if flags & _WITH_CHECKS else 1))
        if flags & _WITH_SHA256:
            yield _hex(name), _hex(shard[at : at + 32])
            at += _HEADER


def _hex(hash: bytes) -> str:
    """Hashes are four little-endian numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", hash))
