"""What publishing did, or would do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published version."""

    path: str
    """In the repository, or in the version's folder."""
    bytes: int
    """Its size."""


@dataclass(frozen=True)
class Delivery:
    """What became of the files at the destination."""

    address: str
    """Where a person finds them."""
    revision: str | None
    """The hub's commit; None for other destinations."""
    already_there: bool
    """Whether the whole version was, so that nothing was written."""
    bytes_sent: int
    """Size of the files that were not there before. A hub that finds their bytes in other files, or has them from a
    publish that was killed, was sent fewer."""


@dataclass(frozen=True)
class PublishReport:
    """What `publish_version` did; of a dry run, what it would do."""

    corpus: str
    """`NAME@vN`, or the student's name."""
    destination: str
    """The `to` that was asked for."""
    digest: str
    """The version's digest; of a student that of the files which load it."""
    tag: str
    """`vN`, or the student's name: the tag on a hub, the folder elsewhere."""
    files: tuple[PublishedFile, ...]
    """Every file of the version there, card and manifest too."""
    bytes: int
    """Their size together."""
    dry_run: bool
    """Whether nothing was looked at or written there; then there is no delivery."""
    card: str | None
    """Of a dry run: the dataset card."""
    delivery: Delivery | None
    """What became of them; None for a dry run."""

    @property
    def already_there(self) -> bool:
        """Whether the version was there before."""
        return self.delivery is not None and self.delivery.already_there

    @property
    def revision(self) -> str | None:
        """The hub's commit; None for other destinations and dry runs."""
        return None if self.delivery is None else self.delivery.revision

    @property
    def bytes_sent(self) -> int:
        """Size of the files that were not there before."""
        return 0 if self.delivery is None else self.delivery.bytes_sent
