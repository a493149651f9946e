"""What hubs and stores are given to publish, whatever it is: files, of which the last makes the others a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_data.corpus.manifest import FileFacts
    from distill_data.publish.release import ReleaseFile

RepoType = Literal["dataset", "model"]


class Publishable(Protocol):
    """A version of a corpus (`release`) or a student (`student`)."""

    @property
    def repo_type(self) -> RepoType:
        """Which kind of a hub's repositories it goes to."""
        ...

    @property
    def reference(self) -> str:
        """What people call it."""
        ...

    @property
    def tag(self) -> str:
        """The tag on a hub, the folder elsewhere; never given to anything else."""
        ...

    @property
    def digest(self) -> str:
        """Hash of what makes it this one."""
        ...

    @property
    def title(self) -> str:
        """Of the hub's commit."""
        ...

    @property
    def card(self) -> ReleaseFile:
        """README.md."""
        ...

    @property
    def marker(self) -> ReleaseFile:
        """The file that names it; written last where a store takes files one by one."""
        ...

    @property
    def files(self) -> tuple[ReleaseFile, ...]:
        """All files, the marker last."""
        ...

    def require_whole(self) -> None:
        """Look at its files before they are sent.

        Raises:
            CorpusError: they are not what they were.
        """
        ...

    def owns(self, path: str) -> bool:
        """Whether a path at a destination is of the kind that it brings: what it does not bring goes."""
        ...

    def what_else(self, marker: str | None) -> str | None:
        """What a place with this marker (None for none) holds instead of it; None where it is this very one."""
        ...

    def why_not_next(self, marker: str) -> str | None:
        """Why it cannot take the place of what has this marker; None where it can."""
        ...

    def before(self, marker: str) -> tuple[str, Sequence[FileFacts]] | None:
        """The tag of what has this marker, whose place it may take, and its files; None where the marker lists none."""
        ...
