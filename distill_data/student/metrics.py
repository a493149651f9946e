"""metrics.jsonl: one line a step, and one a look at the held-out traces; written as training goes, and durable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distill_data.parquet import place

METRICS_NAME = "metrics.jsonl"


class Metrics:
    """The metrics of a training in `folder`, and with `tensorboard` the same as TensorBoard's event files.

    A training that goes on after `step` steps keeps the lines up to there; those behind it are made again. Without
    `writes` they are kept in memory alone: of several processes that train together one writes.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = False, *, writes: bool = True):
        path = folder / METRICS_NAME
        self.lines = [line for line in _read(path) if line["step"] <= step]
        self._file = self._board = None
        if writes:
            place("".join(map(_as_line, self.lines)).encode(), path)
            self._file = path.open("a", encoding="utf-8")
            self._board = _event_writer(folder / "tensorboard", step) if tensorboard else None

    def add(self, step: int, **values: float) -> None:
        """Write down what was measured after a step."""
        self.lines.append({"step": step, **values})
        if self._file is not None:
            self._file.write(_as_line(self.lines[-1]))
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def of(self, name: str) -> list[dict[str, Any]]:
        """The lines that have this value."""
        return [line for line in self.lines if name in line]

    def close(self) -> None:
        """Nothing more comes."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _as_line(values: dict[str, Any]) -> str:
    return json.dumps(values) + "\n"


def _read(path: Path) -> list[dict[str, Any]]:
    """Whole lines of a file that may end in half a one."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def _event_writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard.writer import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
