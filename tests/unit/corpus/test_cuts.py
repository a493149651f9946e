from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distill_data.corpus import cuts
from distill_data.corpus.assemble import assemble
from distill_data.corpus.read import open_corpus
from distill_data.records import SOFT_LABELS_SCHEMA
from tests.benchmarks.tried_layouts import pages as pages_of

from .conftest import MakeJob, make_prompts

ROWS = 20_000


@pytest.fixture
def traces() -> tuple[np.ndarray, np.ndarray]:
    """Hashes and long-tailed token counts, some of them none and some more than a row group has."""
    random = np.random.default_rng(0)
    tokens = random.lognormal(6, 1, ROWS).astype(np.int64)
    tokens[[5, 700, ROWS - 1]] = 0, cuts.GROUP_TOKENS + 1, 0
    return cuts.hashes(
        pa.chunked_array([[f"p{n // 4}" for n in range(ROWS)]]), pa.chunked_array([np.arange(ROWS) % 4])
    ), tokens


def names(pieces: list[slice], hashes: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(hashes[piece].tolist()) for piece in pieces}


def all_cuts(hashes: np.ndarray, tokens: np.ndarray) -> tuple[list[slice], list[slice]]:
    groups = list(cuts.row_groups(hashes, tokens))
    inside = [
        (group.start, page) for group in groups for page in cuts.pages(hashes[group], tokens[group], cuts.PAGE_REACH)
    ]
    return groups, [slice(start + page.start, start + page.stop) for start, page in inside]


def test_every_row_is_in_one_page_of_one_row_group_that_fits_into_memory(traces: tuple[np.ndarray, np.ndarray]) -> None:
    hashes, tokens = traces
    assert len(set(hashes.tolist())) == ROWS
    for pieces in all_cuts(hashes, tokens):
        assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(range(ROWS))
    groups, pages = all_cuts(hashes, tokens)
    for group in groups:
        rows = group.stop - group.start
        assert rows == 1 or (rows <= cuts.GROUP_ROWS and tokens[group].sum() <= cuts.GROUP_TOKENS)
    assert cuts.PAGE_REACH < tokens.sum() / len(pages) < 3 * cuts.PAGE_REACH
    assert {piece.stop for piece in groups} <= {piece.stop for piece in pages}


def test_few_rows_and_none_are_cut_too() -> None:
    nothing, one = np.empty(0, np.uint64), np.array([7], np.uint64)
    assert list(cuts.row_groups(nothing, nothing)) == []
    assert list(cuts.row_groups(one, one)) == cuts.pages(one, np.array([7]), 4000) == [slice(0, 1)]


@pytest.mark.parametrize("change", ["drop", "insert"])
def test_what_is_around_a_change_keeps_its_cuts(traces: tuple[np.ndarray, np.ndarray], change: str) -> None:
    hashes, tokens = traces
    without = np.delete(hashes, 300), np.delete(tokens, 300)
    before, after = (traces, without) if change == "drop" else (without, traces)
    old, new = ([names(pieces, one[0]) for pieces in all_cuts(*one)] for one in (before, after))
    assert 1 <= len(new[0] - old[0]) <= 4 < len(new[0])  # row groups find back into step
    assert 1 <= len(new[1] - old[1]) <= 10 < len(new[1]) / 10


def test_files_have_the_pages_that_traces_choose(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page more for every cut, narrow columns fewer, and a version without one prompt has most of them."""
    monkeypatch.setattr(cuts.in_pages, "__defaults__", (20,))
    found: list[list[bytes]] = []
    every = make_prompts(30)
    for root, prompts in {"a": every, "b": every[:14] + every[15:]}.items():
        job = make_job(prompts, root=tmp_path / root, validation={"fraction": 0.0})
        assemble(job, lambda _: None)
        (path,) = open_corpus("sums@v1", job.config.root).files("soft_labels", "train")
        found.append([name for name, _ in pages_of(path.read_bytes())])
    first, later = found
    columns, wide = len(SOFT_LABELS_SCHEMA), len(cuts.WIDE)
    cut, coarse = 15, 4
    assert wide * cut + (columns - wide) * coarse < len(first) - 1 < 4 * (wide * cut + (columns - wide) * coarse)
    assert 0 < len(set(later) - set(first)) < len(later) / 2
