from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from distill_data.config import DatasetPrompts, ReasoningGymPrompts
from distill_data.errors import InputError
from distill_data.prompts import load_prompts, prompt_set, save_prompts
from distill_data.records import PROMPT_SCHEMA, table_to_prompts


def texts(path: Path, prompts: list[str | None], name: str | None = None) -> DatasetPrompts:
    path.write_text("\n".join(json.dumps({"q": text}) for text in prompts))
    return DatasetPrompts(source="dataset", path=str(path), prompt="q", name=name)


def test_sources_come_in_order_and_repeats_are_dropped_by_name(tmp_path: Path) -> None:
    first = texts(tmp_path / "first.jsonl", ["b", "a", " \n\t\u3000", "b", None])
    second = texts(tmp_path / "second.jsonl", ["a", "c"])
    loaded = load_prompts([first, second])
    assert loaded.table.schema == PROMPT_SCHEMA
    prompts = table_to_prompts(loaded.table)
    assert [(prompt.source, prompt.messages[0]["content"]) for prompt in prompts] == [
        ("first", "b"),
        ("first", "a"),
        ("second", "c"),
    ]
    assert loaded.table["prompt_id"].to_pylist() == [prompt.prompt_id for prompt in prompts]
    assert loaded.dropped["drop_reason"].to_pylist() == [
        "empty_prompt",
        "duplicate_prompt",
        "empty_prompt",
        "duplicate_prompt",
    ]
    assert loaded.dropped["drop_detail"].to_pylist()[3] == "source second, row 0: same as source first, row 1"
    assert set(loaded.revisions) == {"first", "second"}


def test_repeats_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_set, "BATCH_ROWS", 2)
    loaded = load_prompts([texts(tmp_path / "a.jsonl", ["a", "b", "c", "b", "a"])])
    assert loaded.table.num_rows == 3
    assert [detail[-5:] for detail in loaded.dropped["drop_detail"].to_pylist()] == ["row 1", "row 0"]


def test_empty_is_about_the_last_user_message(tmp_path: Path) -> None:
    system = {"role": "system", "content": "help"}
    chats = [
        [system, {"role": "user", "content": " "}],
        [system],
        [],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": ""}],
        [{"role": "user", "content": "hi"}],
    ]
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps({"m": chat}) for chat in chats))
    loaded = load_prompts([DatasetPrompts(source="dataset", path=str(path), messages="m")])
    assert loaded.table["metadata"].to_pylist() == ['{"row": 4}']
    assert loaded.dropped["drop_reason"].to_pylist() == ["empty_prompt"] * 4


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all 2 prompts are empty"):
        load_prompts([texts(tmp_path / "a.jsonl", ["", " "])])


def test_digest_follows_content_and_order(tmp_path: Path) -> None:
    def digest_of(prompts: list[str | None], name: str = "s") -> str:
        return load_prompts([texts(tmp_path / "a.jsonl", prompts, name=name)]).digest

    assert digest_of(["a", "b"]) == digest_of(["a", "b"])
    assert len({digest_of(["a", "b"]), digest_of(["b", "a"]), digest_of(["a"]), digest_of(["a", "b"], "t")}) == 4


def test_saved_once_whole_and_in_row_groups(tmp_path: Path) -> None:
    source = ReasoningGymPrompts(source="reasoning_gym", task="chain_sum", size=1500, seed=1)
    loaded = load_prompts([source])
    path = save_prompts(loaded, tmp_path)
    assert path == tmp_path / "prompts" / f"{loaded.digest[:16]}.parquet"
    assert list(path.parent.iterdir()) == [path]
    saved = pq.ParquetFile(path)
    assert saved.metadata.row_group(0).num_rows == 1024
    assert saved.read().equals(loaded.table)
    before = path.stat()
    assert save_prompts(loaded, tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
