from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill_data.corpus.read import Corpus
from distill_data.errors import CorpusError
from distill_data.page import render_page, sampling, write_page
from distill_data.page.examples import ALTERNATIVES, KEPT_SHOWN, Cuts, shown_row
from distill_data.page.gather import gather
from distill_data.page.payload import payload, script_json
from distill_data.page.sampling import choose_rows, sampled_rows
from distill_data.page.scan import REJECTED_SHOWN
from distill_data.page.stages import stages
from distill_data.page.tokens import entropies
from distill_data.records import SoftLabels
from tests.page.conftest import HOSTILE, decode
from tests.unit.corpus.conftest import make_labels


def all_rows(corpus: Corpus) -> list[dict]:
    kept = [row for split in corpus.splits for row in corpus.table("traces", split).to_pylist()]
    return kept + corpus.table("rejected").to_pylist()


def test_the_scan_agrees_with_the_rows(corpus: Corpus) -> None:
    found = gather(corpus).scan
    rows = all_rows(corpus)
    assert found.passed == sum(row["passed"] is True for row in rows)
    assert found.judged == sum(row["passed"] is not None for row in rows)
    assert len(found.prompts) == corpus.manifest.counts["prompts"]
    lengths = [row["completion_tokens"] for row in rows if row["completion_tokens"]]
    assert sorted(found.lengths.tolist()) == sorted(lengths)
    assert found.kept.sum() == corpus.manifest.counts["kept"]
    judged = Counter(row["prompt_id"] for row in rows if row["passed"] is not None)
    by_prompt = dict(zip(*(found.prompts[name].to_pylist() for name in ("prompt_id", "judged")), strict=True))
    assert {name: count for name, count in by_prompt.items() if count} == dict(judged)


def test_the_stages_add_up(corpus: Corpus) -> None:
    way = stages(corpus, gather(corpus).scan)
    counts = corpus.manifest.counts
    assert [stage.count for stage in way[:2]] == [counts["prompts"], counts["traces"]]
    assert [stage.count for stage in way[3:]] == [counts["kept"], counts["train"] + counts["validation"]]
    assert max(stage.width for stage in way) == 100.0
    assert way[4].width == pytest.approx(way[3].width)


def test_examples_are_some_of_every_reason_and_of_every_source(corpus: Corpus) -> None:
    found = gather(corpus)
    reasons = Counter(row["drop_reason"] for row in found.rejected)
    assert reasons == {name: min(count, REJECTED_SHOWN) for name, count in corpus.manifest.dropped.items()}
    assert list(reasons) == list(corpus.manifest.dropped)
    assert len(found.kept) == min(KEPT_SHOWN, corpus.manifest.counts["kept"])
    assert len({row["source"] for row in found.kept[:3]}) == 3
    assert {row["split"] for row in found.kept} == {"train", "validation"}
    stored = {row["trace_id"]: row for row in all_rows(corpus)}
    for row in found.rejected:
        if row["trace_id"]:
            assert row == stored[row["trace_id"]]


def test_the_same_version_gives_the_same_examples(corpus: Corpus) -> None:
    first, second = gather(corpus), gather(corpus)
    assert (first.kept, first.rejected) == (second.kept, second.rejected)


def test_tokens_are_those_of_the_soft_labels(corpus: Corpus) -> None:
    stored = {row["trace_id"]: row for split in corpus.splits for row in corpus.table("soft_labels", split).to_pylist()}
    for row in gather(corpus).kept:
        labels, tokens = stored[row["trace_id"]], row["tokens"]
        assert tokens["ids"] == labels["completion_token_ids"][: len(tokens["ids"])]
        assert tokens["total"] == len(labels["completion_token_ids"])
        assert tokens["p"] == pytest.approx(np.exp(labels["sampled_logprobs"][: len(tokens["ids"])]), rel=1e-3)
        start = 0
        for count, pairs, (more, mass), tail in zip(
            labels["support_counts"], tokens["alternatives"], tokens["others"], tokens["tail"], strict=False
        ):
            kept = np.exp(np.array(labels["support_logprobs"][start : start + count], float))
            assert pairs[::2] == labels["support_ids"][start : start + count][:ALTERNATIVES]
            assert pairs[1::2] == pytest.approx(kept[:ALTERNATIVES], rel=1e-3)
            assert (more, mass) == (max(0, count - ALTERNATIVES), pytest.approx(kept[ALTERNATIVES:].sum(), rel=1e-3))
            assert sum(pairs[1::2]) + mass + tail == pytest.approx(1.0, abs=2e-3)
            start += count


def test_entropy_is_that_of_the_support_and_one_tail_token() -> None:
    labels = make_labels(1, 50)
    found = entropies(labels, None)
    start = 0
    for count, value in zip(labels.support_counts.tolist(), found, strict=True):
        p = np.exp(labels.support_logprobs[start : start + count].astype(float))
        p = np.append(p, max(0.0, 1 - p.sum()))
        assert value == pytest.approx(-(p[p > 0] * np.log(p[p > 0])).sum(), abs=1e-5)
        start += count


def test_entropy_from_draws_is_right_on_average() -> None:
    """Systematic draws keep a token with probability min(1, draws p)."""
    p = np.array([0.7, 0.2, 0.06, 0.03, 0.01])
    draws, starts = 4, np.linspace(0, 1, 4000, endpoint=False)
    ends = np.cumsum(p)
    total = 0.0
    for start in starts:
        ids = np.unique(np.searchsorted(ends, (start + np.arange(draws)) / draws, side="right").clip(0, 4))
        kept = np.log(p[ids])
        labels = SoftLabels(np.zeros(1), np.array([len(ids)], np.uint8), ids, kept)
        total += entropies(labels, draws)[0]
    assert total / len(starts) == pytest.approx(-(p * np.log(p)).sum(), rel=2e-3)


def test_a_large_version_is_sampled_within_its_budget(corpus: Corpus) -> None:
    traces = {split: corpus.row_groups("traces", split) for split in corpus.splits}
    sample = sampled_rows(corpus, traces, tokens=2_000)
    assert sample == sampled_rows(corpus, traces, tokens=2_000)
    read = [light["completion_tokens"].to_pylist() for rows in sample for _, light, _ in rows.pairs()]
    assert 0 < sum(map(sum, read)) <= 2_000
    assert sum(map(len, read)) == sum(rows.rows for rows in sample)
    chosen = choose_rows(sample, 5)
    assert sorted(chosen.values()) == [0, 1, 2, 3, 4]
    assert all(row < sample[place].rows for place, row in chosen)


def test_few_row_groups_are_read_of_many(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "ROW_GROUPS", 1)
    traces = {split: corpus.row_groups("traces", split) for split in corpus.splits}
    assert len(sampled_rows(corpus, traces)) == 1


def test_soft_labels_that_are_gone_are_named(corpus: Corpus, tmp_path: Path) -> None:
    copy = replace(corpus, path=Path(shutil.copytree(corpus.path, tmp_path / "v1")))
    next((copy.path / "soft_labels").glob("train-*")).unlink()
    with pytest.raises(CorpusError, match=r"soft_labels/train-.*cannot be read"):
        gather(copy)


def test_long_texts_are_cut_and_say_so(corpus: Corpus) -> None:
    row = gather(corpus).kept[0]
    shown = shown_row({**row, "thinking": "x" * 500}, Cuts(tokens=4, characters=100), with_tokens=True)
    assert shown["thinking"] == {"text": "x" * 100, "left": 400}
    assert len(shown["tokens"]["ids"]) == len(shown["tokens"]["alternatives"]) == 4
    assert shown["tokens"]["total"] == row["completion_tokens"]
    assert [role for role, _ in shown["messages"]] == ["system", "user"]


def test_the_viewer_has_no_tokens_without_their_texts(corpus: Corpus) -> None:
    found = gather(corpus)
    data = json.loads(payload(found.kept, found.rejected, None).json)
    assert data["texts"] == {} and all(row["tokens"] is None for row in data["rows"])
    data = json.loads(payload(found.kept, found.rejected, decode).json)
    shown = {number for row in data["rows"] if row["tokens"] for number in row["tokens"]["ids"]}
    assert shown <= {int(number) for number in data["texts"]}


def test_texts_shrink_until_the_page_is_small(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gather(corpus)
    monkeypatch.setattr("distill_data.page.payload.MOST_BYTES", 400_000)
    small = payload(found.kept, found.rejected, decode)
    assert len(small.json.encode()) <= 400_000
    assert small.cuts.tokens < 256


def test_json_in_a_script_has_no_markup_in_it() -> None:
    text = script_json({"text": HOSTILE + "\u2028 ]]> &amp; \ud800"})
    assert not set("<>&\u2028\ud800") & set(text)
    assert json.loads(text) == {"text": HOSTILE + "\u2028 ]]> &amp; ?"}


def test_pages_of_equal_versions_are_equal_bytes(corpus: Corpus, tmp_path: Path) -> None:
    write_page(corpus, tmp_path / "deep" / "page.html", decode)
    assert (tmp_path / "deep" / "page.html").read_text(encoding="utf-8") == render_page(corpus, decode)


def test_a_page_that_cannot_be_written_is_one_line(corpus: Corpus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CorpusError, match=r"cannot write .*page\.html: .*: name another file"):
        write_page(corpus, tmp_path / "file" / "page.html")
