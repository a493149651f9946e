from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from distill_data.corpus import diff
from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.diff import PromptChange, changed_rows, diff_versions
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import CorpusError
from distill_data.identity import trace_id
from distill_data.report.history import diff_summary
from tests.unit.corpus.conftest import TEACHER_ID, make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]


def made(job: Assembly) -> Corpus:
    manifest = assemble(job, lambda _: None)
    return open_corpus(f"sums@v{manifest.version}", job.config.root)


def changed(before: Corpus, after: Corpus) -> dict[tuple[str, str | None], set[str]]:
    rows: dict[tuple[str, str | None], set[str]] = {}

    def see(piece: pa.Table) -> None:
        for row in piece.to_pylist():
            rows.setdefault((row["change"], row["reason"]), set()).add(row["trace_id"])

    diff_versions(before, after, see)
    return rows


def kept(corpus: Corpus) -> set[str]:
    return {name for split in corpus.splits for name in corpus.table("traces", split)["trace_id"].to_pylist()}


def test_a_version_is_the_same_as_itself(make_job: MakeJob) -> None:
    one = made(make_job())
    found = diff_versions(one, one)
    assert found.same and (found.left, found.came, found.config, found.teacher) == ({}, {}, {}, {})
    assert found.stayed == one.manifest.counts["kept"]
    assert diff_summary(found, None) == "sums@v1 and sums@v1 are the same: equal digests"


def test_a_stricter_filter_is_named_and_each_row_has_its_reason(make_job: MakeJob) -> None:
    before = made(make_job())
    after = made(make_job(filters={"max_tokens": 6}))
    found = diff_versions(before, after)
    assert found.config["filters.max_tokens"] == [None, 6]
    gone = kept(before) - kept(after)
    assert found.left == {"too_long": len(gone)} and gone
    assert found.came == {} and found.teacher == {}
    assert found.stayed == len(kept(after))
    assert changed(before, after)["left", "too_long"] == gone
    back = diff_versions(after, before)
    assert back.came == {"too_long": len(gone)} and back.left == {}
    told = diff_summary(back, [])
    assert f"came        {len(gone)}: was too_long" in told
    assert "config      filters.max_tokens: 6 -> None" in told


def test_prompts_and_samples_that_came_and_went(make_job: MakeJob) -> None:
    prompts = make_prompts(12)
    before = made(make_job(prompts[:10], right_or_wrong(prompts[:10], 2)))
    after = made(make_job(prompts[2:], right_or_wrong(prompts[2:], 4)))
    found = diff_versions(before, after)
    assert found.prompts == {"sums": PromptChange(added=2, removed=2, kept=8)}
    rows = changed(before, after)
    went = {trace_id(TEACHER_ID, prompt.prompt_id, sample) for prompt in prompts[:2] for sample in range(2)}
    assert rows["left", "its prompt is gone"] == went & kept(before)
    new = {trace_id(TEACHER_ID, prompt.prompt_id, sample) for prompt in prompts[10:] for sample in range(4)}
    assert rows["came", "new prompt"] == new & kept(after)
    more = {trace_id(TEACHER_ID, prompt.prompt_id, sample) for prompt in prompts[2:10] for sample in (2, 3)}
    assert rows["came", "new sample"] == more & kept(after)
    assert found.stayed == len(kept(before) & kept(after))


def test_a_prompt_that_is_dropped_is_the_reason_of_its_rows(make_job: MakeJob) -> None:
    prompts = make_prompts(10)
    before = made(make_job(prompts, right_or_wrong(prompts, 2)))
    first = prompts[0]
    dropped: dict[str, Any] = {
        "prompt_id": first.prompt_id, "source": "sums", "messages": first.messages, "reference": "1",
        "metadata": "{}", "drop_reason": "contaminated", "drop_detail": "of a benchmark",
    }  # fmt: skip
    after = made(make_job(prompts[1:], right_or_wrong(prompts[1:], 2), dropped=[dropped]))
    found = diff_versions(before, after)
    assert set(found.left) == {"contaminated"}
    assert found.prompts["sums"] == PromptChange(0, 0, 10)


def test_rows_that_were_generated_anew_are_told_from_those_that_stayed(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = make_prompts(10)
    before = made(make_job(prompts, right_or_wrong(prompts, 1), root=tmp_path / "a"))
    other = [make_trace(prompts[0], 0, "<think>\nno\n</think>\n\nsomething else"), *right_or_wrong(prompts[1:], 1)]
    after = made(make_job(prompts, other, root=tmp_path / "b"))
    found = diff_versions(before, after)
    assert (found.said_otherwise, found.stayed) == (1, 9)
    assert diff_summary(found, None).count("9 stayed, 1 generated anew") == 1


@pytest.mark.parametrize("rows", [True, False])
def test_rows_are_told_one_by_one_where_asked(make_job: MakeJob, rows: bool) -> None:
    before, after = made(make_job()), made(make_job(filters={"max_tokens": 6}))
    every: list[dict[str, Any]] = []
    found = diff_versions(before, after, lambda piece: every.extend(changed_rows(piece)))
    assert len(every) == sum(found.left.values())
    told = diff_summary(found, every if rows else None)
    assert all((row["trace_id"] in told) == rows for row in every)


def test_pieces_give_what_the_whole_gives_and_each_is_small(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = make_prompts(40)
    before = made(make_job(prompts[:35], right_or_wrong(prompts[:35], 3)))
    after = made(make_job(prompts[5:], right_or_wrong(prompts[5:], 3), filters={"max_tokens": 6}))
    whole, rows = diff_versions(before, after), changed(before, after)
    monkeypatch.setattr(diff, "ROWS_AT_ONCE", 20)
    sizes: list[int] = []
    pieces = diff_versions(before, after, lambda piece: sizes.append(len(piece)))
    assert pieces == whole and changed(before, after) == rows
    assert whole.left["its prompt is gone"] and whole.left["too_long"] and whole.came["new prompt"]
    assert len(sizes) == 1 + (35 + 35) * 3 // 20 and sum(sizes) == sum(map(len, rows.values())) and max(sizes) < 40


def test_no_room_for_pieces_is_one_line(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(make_job())
    monkeypatch.setattr("tempfile.tempdir", "/proc/no-such-folder")
    with pytest.raises(CorpusError, match=r"cannot write temporary files for a comparison: .*TMPDIR"):
        diff_versions(one, one)
