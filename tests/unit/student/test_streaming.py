from __future__ import annotations

import itertools
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

from distill_data.corpus.data_file import RowGroup
from distill_data.errors import CorpusError, StudentError
from distill_data.parquet import write_options
from distill_data.records import SOFT_LABELS_SCHEMA
from distill_data.student import streaming
from distill_data.student.collate import SoftLabelCollator
from distill_data.student.streaming import SoftLabelStream
from tests.unit.student.conftest import label_table

GROUP_ROWS = [5, 1, 7, 4, 6, 3, 8, 2, 5]  # two files
TRACES = sum(GROUP_ROWS)


def trace(number: int) -> dict[str, Any]:
    """A trace whose first prompt token is its number; every seventh is long."""
    tokens = 2 + number % 3 + 20 * (number % 7 == 6)
    return {
        "trace_id": f"trace-{number}",
        "prompt_token_ids": [number, 1],
        "completion_token_ids": list(range(tokens)),
        "sampled_logprobs": [-0.5] * tokens,
        "support_counts": [2] * tokens,
        "support_ids": [3, 4] * tokens,
        "support_logprobs": [-0.5, -1.0] * tokens,
    }


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[RowGroup]:
    folder, number, made = tmp_path_factory.mktemp("files"), 0, []
    for name, sizes in (("a", GROUP_ROWS[:4]), ("b", GROUP_ROWS[4:])):
        with pq.ParquetWriter(folder / name, SOFT_LABELS_SCHEMA, **write_options(SOFT_LABELS_SCHEMA)) as writer:
            for at, rows in enumerate(sizes):
                writer.write_table(label_table([trace(number + row) for row in range(rows)]))
                made.append(RowGroup(folder / name, at, rows))
                number += rows
    return made


@pytest.fixture(params=[256, 2], autouse=True)
def chunk_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(streaming, "CHUNK_ROWS", request.param)
    return request.param


def numbers(stream: SoftLabelStream) -> list[int]:
    return [int(row["prompt_token_ids"][0]) for row in stream]


@pytest.fixture
def as_worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Be this dataloader worker of so many; none of none is the main process."""

    def become(number: int, workers: int) -> None:
        info = SimpleNamespace(id=number, num_workers=workers) if workers else None
        monkeypatch.setattr(streaming, "get_worker_info", lambda: info)

    return become


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_and_workers_share_every_trace(world: int, workers: int, groups: list[RowGroup], as_worker: Any) -> None:
    given: list[list[int]] = []
    for rank in range(world):
        of_rank: list[int] = []
        for worker in range(max(workers, 1)):
            as_worker(worker, workers)
            of_rank += numbers(SoftLabelStream(groups, 100, rank=(rank, world)))
        given.append(of_rank)
    assert sorted(itertools.chain.from_iterable(given)) == list(range(TRACES))
    assert max(map(len, given)) - min(map(len, given)) <= 1


def test_dataloader_workers_share_every_trace(groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 100)
    loader: Any = DataLoader(
        stream,
        batch_size=4,
        num_workers=2,
        collate_fn=SoftLabelCollator(),
        multiprocessing_context="spawn",  # a forked worker would inherit what other tests left in this process
    )
    batches = list(loader)
    assert sorted(int(number) for batch in batches for number in batch["input_ids"][:, 0]) == list(range(TRACES))
    stream.set_epoch(1)
    again = [batch["input_ids"][:, 0].tolist() for batch in loader]
    assert again != [batch["input_ids"][:, 0].tolist() for batch in batches]


def test_traces_are_those_of_the_files(groups: list[RowGroup]) -> None:
    for row in SoftLabelStream(groups, 100):
        expected = trace(int(row["prompt_token_ids"][0]))
        del expected["trace_id"]
        assert {name: values.tolist() for name, values in row.items()} == expected


def test_order_comes_from_seed_and_epoch(groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 100, seed=1)
    epochs = [numbers(stream) for _ in range(3)]
    assert len({tuple(order) for order in [*epochs, range(TRACES)]}) == 4
    assert {tuple(sorted(order)) for order in epochs} == {tuple(range(TRACES))}
    again = SoftLabelStream(groups, 100, seed=1)
    again.set_epoch(2)
    assert numbers(again) == epochs[2]
    assert numbers(SoftLabelStream(groups, 100, seed=2)) != epochs[0]


def test_open_groups_are_shuffled_together(groups: list[RowGroup]) -> None:
    owner = np.repeat(np.arange(len(GROUP_ROWS)), GROUP_ROWS)

    def changes(open_groups: int) -> int:
        order = owner[numbers(SoftLabelStream(groups, 100, open_groups=open_groups))]
        return int((np.diff(order) != 0).sum())

    assert changes(1) == len(GROUP_ROWS) - 1
    assert changes(len(GROUP_ROWS)) > changes(3) > changes(1)


def test_long_traces_are_left_out_and_counted(groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 10)
    short = [number for number in range(TRACES) if number % 7 != 6]
    assert sorted(numbers(stream)) == short
    assert (stream.traces, stream.too_long) == (len(short), TRACES - len(short))
    shares = [numbers(SoftLabelStream(groups, 10, rank=(rank, 3))) for rank in range(3)]
    assert sorted(itertools.chain.from_iterable(shares)) == short
    with pytest.raises(StudentError, match=rf"all {TRACES} traces are longer than max_length 3 \(the shortest has 4"):
        SoftLabelStream(groups, 3)
    with pytest.raises(StudentError, match="there are no traces"):
        SoftLabelStream([], 3)


@pytest.mark.parametrize("position", [0, 1, 6, 13, 20, 27, TRACES - 1])
def test_reading_goes_on_behind_the_last_trace(position: int, groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 100, open_groups=2)
    stream.set_epoch(3)
    given = []
    for row in stream:
        if len(given) == position:
            break
        given.append(int(row["prompt_token_ids"][0]))
        state = json.loads(json.dumps(stream.state_dict()))
    else:
        raise AssertionError("the epoch was over")
    if not position:
        state = {"epoch": 3, "position": 0, "share": [0, 1]}
    resumed = SoftLabelStream(groups, 100, open_groups=2)
    resumed.load_state_dict(state)
    assert resumed.state_dict().items() >= state.items()
    rest = numbers(resumed)
    assert sorted(given + rest) == list(range(TRACES))
    whole = SoftLabelStream(groups, 100, open_groups=2)
    whole.set_epoch(3)
    assert given + rest == numbers(whole)
    assert numbers(resumed) == numbers(whole)  # both went on to epoch 4


def test_a_share_that_was_read_to_its_end_has_nothing_left(groups: list[RowGroup]) -> None:
    """Other workers may still be reading theirs when the positions of all are saved."""
    stream = SoftLabelStream(groups, 100)
    assert len(numbers(stream)) == TRACES
    resumed = SoftLabelStream(groups, 100)
    resumed.load_state_dict(stream.state_dict())
    assert numbers(resumed) == []
    assert numbers(resumed) == numbers(stream)


def test_a_share_resumes_at_any_of_its_positions(groups: list[RowGroup], as_worker: Any) -> None:
    as_worker(1, 2)
    whole = numbers(SoftLabelStream(groups, 100, rank=(1, 2), open_groups=2))
    for position in range(len(whole)):
        stream = SoftLabelStream(groups, 100, rank=(1, 2), open_groups=2)
        stream.load_state_dict({"epoch": 0, "position": position, "share": [3, 4]})
        assert numbers(stream) == whole[position:]


def test_a_new_iteration_begins_its_epoch_again_unless_a_position_was_loaded(groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 100)
    first = next(iter(stream))["prompt_token_ids"][0]
    assert numbers(stream)[0] == first
    stream.load_state_dict({"epoch": 5, "position": 9, "share": [0, 1]})
    stream.set_epoch(5)
    assert len(numbers(stream)) == TRACES - 9
    stream.load_state_dict({"epoch": 5, "position": 9, "share": [0, 1]})
    stream.set_epoch(6)
    assert len(numbers(stream)) == TRACES


def test_a_position_of_another_share_is_refused(groups: list[RowGroup]) -> None:
    stream = SoftLabelStream(groups, 100, rank=(0, 2))
    next(iter(stream))
    other = SoftLabelStream(groups, 100, rank=(1, 2))
    other.load_state_dict(stream.state_dict())
    with pytest.raises(StudentError, match=r"number 1 of 2 and its position was saved by number 0 of 2: go on with"):
        next(iter(other))


@pytest.mark.parametrize("changed", [{"seed": 1}, {"open_groups": 3}, {"max_length": 10}])
def test_a_position_of_another_order_is_refused(groups: list[RowGroup], changed: dict[str, Any]) -> None:
    stream = SoftLabelStream(groups, 100)
    next(iter(stream))
    other = SoftLabelStream(groups, **{"max_length": 100, **changed})
    with pytest.raises(StudentError, match=r"go on with the corpus version, seed, max_length and open_groups"):
        other.load_state_dict(stream.state_dict())


def test_more_ranks_than_traces_share_them_too(groups: list[RowGroup]) -> None:
    given = [numbers(SoftLabelStream(groups, 100, rank=(rank, TRACES + 9))) for rank in range(TRACES + 9)]
    assert sorted(itertools.chain.from_iterable(given)) == list(range(TRACES)) and max(map(len, given)) == 1


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """Every block that a stream reads, as long as somebody holds it."""
    made: list[weakref.ref[Any]] = []

    def read(*arguments: Any) -> Any:
        block = original(*arguments)
        made.append(weakref.ref(block))
        return block

    original = streaming.Block
    monkeypatch.setattr(streaming, "Block", read)
    yield made


@pytest.mark.parametrize("open_groups", [1, 2, 4])
def test_no_more_chunks_are_in_memory_than_stated(
    open_groups: int, groups: list[RowGroup], blocks: list[weakref.ref[Any]], chunk_rows: int
) -> None:
    alive = []
    for _ in SoftLabelStream(groups, 100, open_groups=open_groups):
        alive.append(sum(block() is not None for block in blocks))
    assert max(alive) == open_groups
    assert len(blocks) == sum(-(-rows // chunk_rows) for rows in GROUP_ROWS)


def test_resuming_keeps_nothing_that_is_done(groups: list[RowGroup], blocks: list[weakref.ref[Any]]) -> None:
    stream = SoftLabelStream(groups, 100, open_groups=2)
    stream.load_state_dict({"epoch": 0, "position": TRACES - 1, "share": [0, 1]})
    assert len(numbers(stream)) == 1
    assert len(blocks) == 1


def test_a_file_that_is_damaged_later_is_named(groups: list[RowGroup], tmp_path: Path) -> None:
    data = groups[0].path.read_bytes()
    file = tmp_path / "copy.parquet"
    file.write_bytes(data)
    stream = SoftLabelStream([RowGroup(file, group.number, group.rows) for group in groups[:4]], 100)
    at = pq.read_metadata(file).row_group(2).column(5).data_page_offset + 40  # support_ids
    file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(CorpusError, match=rf"{file} cannot be read \(.*\): run `distill-data corpus verify`"):
        numbers(stream)
    file.unlink()
    with pytest.raises(CorpusError, match=rf"{file} cannot be read"):
        numbers(stream)
