from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distill_data.errors import InputError, TraceStoreError
from distill_data.filters import DROP_REASONS
from distill_data.prompt_config import DatasetPrompts, ReasoningGymPrompts, SamplingOverrides
from distill_data.prompts import PromptSet, load_prompts, loading, save_prompts
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


def test_a_source_has_a_system_prompt_of_its_own(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"m": own}) + "\n" + json.dumps({"m": own[1:]}))
    chats = DatasetPrompts(
        source="dataset", path=str(tmp_path / "chats.jsonl"), messages="m", system_prompt="Think step by step."
    )
    plain = texts(tmp_path / "plain.jsonl", ["hi"])
    first, second, third = table_to_prompts(load_prompts([chats, plain]).table)
    assert first.messages == own
    assert second.messages == [{"role": "system", "content": "Think step by step."}, own[1]]
    assert third.messages == own[1:]
    assert len({prompt.prompt_id for prompt in (first, second, third)}) == 3


def test_repeats_are_found_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BATCH_ROWS", 2)
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


def test_digests_stay_what_they_were(tmp_path: Path) -> None:
    loaded = load_prompts([texts(tmp_path / "s.jsonl", ["a", "Wie geht's? 你好"])])
    assert loaded.digest == "8fc4023bb3793470772ee1f7c20bdf661caaef252dad1ede97c81e09cfb1ffda"
    assert loaded.table["group_id"].equals(loaded.table["prompt_id"])
    assert loaded.table["completion"].null_count == loaded.table["sampling"].null_count == 2


def scored(path: Path, rows: list[tuple[str, str | None]]) -> DatasetPrompts:
    path.write_text("\n".join(json.dumps({"q": asked, "c": said}) for asked, said in rows))
    return DatasetPrompts(source="dataset", path=str(path), prompt="q", completion="c")


def test_empty_completions_are_dropped_and_other_ones_of_a_question_are_prompts_of_their_own(tmp_path: Path) -> None:
    rows = [("q", "a"), ("q", "b"), ("q", " \n"), ("r", None), (" ", None), ("q", "a")]
    loaded = load_prompts([scored(tmp_path / "s.jsonl", rows)], "score")
    assert [prompt.completion for prompt in table_to_prompts(loaded.table)] == ["a", "b"]
    assert len({*loaded.table["prompt_id"].to_pylist()}) == 2
    assert len({*loaded.table["group_id"].to_pylist()}) == 1
    reasons = loaded.dropped["drop_reason"].to_pylist()
    assert reasons == ["empty_completion", "empty_completion", "empty_prompt", "duplicate_prompt"]
    assert {*reasons} <= DROP_REASONS.keys()
    assert loaded.dropped["drop_detail"].to_pylist()[0] == "source s, row 2: no text to score"


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="all 1 prompts are empty, or their completions are: check the columns"):
        load_prompts([scored(tmp_path / "s.jsonl", [("q", "")])], "score")


def test_overrides_make_other_prompts_of_one_source_only(tmp_path: Path) -> None:
    def load(**sampling: Any) -> PromptSet:
        overrides = SamplingOverrides(**sampling) if sampling else None
        plain, other = texts(tmp_path / "p.jsonl", ["a", "b"]), texts(tmp_path / "o.jsonl", ["a", "c"])
        return load_prompts([plain, other.model_copy(update={"sampling": overrides})])

    ids = {name: load(**sampling).table["prompt_id"].to_pylist() for name, sampling in {
        "none": {}, "more": {"samples": 3}, "hot": {"temperature": 1.5, "samples": 3}, "hotter": {"temperature": 1.6},
    }.items()}  # fmt: skip
    assert ids["none"] == ids["more"]  # how often is not what
    assert len(ids["none"]) == 3  # "a" is there once
    assert ids["hot"][:2] == ids["hotter"][:2] == ids["none"][:2]
    assert len(ids["hot"]) == 4 and len({*ids["hot"], *ids["hotter"], *ids["none"]}) == 7
    hot = load(temperature=1.5, samples=3)
    assert [prompt.sampling for prompt in table_to_prompts(hot.table)] == [None, None, *[{"temperature": 1.5}] * 2]
    assert hot.table["sampling"].to_pylist()[2] == '{"temperature": 1.5}'
    assert hot.table["group_id"][0] == hot.table["group_id"][2]
    assert load(temperature=1.5).digest != load(temperature=1.6).digest


def test_overrides_reach_reasoning_gym_prompts() -> None:
    source = ReasoningGymPrompts(
        source="reasoning_gym", task="chain_sum", size=2, sampling=SamplingOverrides(max_tokens=9)
    )
    assert [prompt.sampling for prompt in table_to_prompts(load_prompts([source]).table)] == [{"max_tokens": 9}] * 2


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    loaded = load_prompts([texts(tmp_path / "a.jsonl", ["a"])])
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(TraceStoreError, match=rf"cannot write {tmp_path}/root/prompts/.*: Not a directory: .* root:"):
        save_prompts(loaded, tmp_path / "root")
    with pytest.raises(TraceStoreError, match=rf"cannot write {tmp_path}/gone/prompts/.*: No such file or directory: "):
        save_prompts(loaded, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_what_could_not_be_synced_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    loaded = load_prompts([texts(tmp_path / "a.jsonl", ["a"])])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TraceStoreError, match=r"cannot write .*\.parquet: Disk quota exceeded: free space"):
        save_prompts(loaded, tmp_path)
    assert list((tmp_path / "prompts").iterdir()) == []
    monkeypatch.undo()
    assert save_prompts(loaded, tmp_path).is_file()
