from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.corpus import assemble as assemble_module
from distill_data.corpus.assemble import Assembly, AssemblyProgress, assemble
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.corpus.versions import list_versions
from distill_data.errors import CorpusError
from distill_data.identity import trace_id, unit_hash
from distill_data.records import SOFT_LABELS_SCHEMA, TRACES_SCHEMA, Prompt

from .conftest import TEACHER_ID, failed_trace, make_prompts, make_trace, right_or_wrong

MakeJob = Callable[..., Assembly]
JUDGED = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}}


def quiet(progress: AssemblyProgress) -> None:
    pass


def build(job: Assembly) -> Corpus:
    manifest = assemble(job, quiet)
    return open_corpus(f"{manifest.name}@v{manifest.version}", job.config.root)


def data_files(corpus: Corpus) -> dict[str, bytes]:
    return {file.path: (corpus.path / file.path).read_bytes() for file in corpus.manifest.files}


def all_rows(corpus: Corpus, family: str) -> pa.Table:
    return pa.concat_tables(corpus.table(family, split) for split in corpus.splits)


def test_counts_add_up_and_rows_are_where_they_belong(make_job: MakeJob) -> None:
    corpus = build(make_job(**JUDGED))
    counts = corpus.manifest.counts
    # 10 prompts x 4 samples; half are wrong; sample 2 of prompts 0 and 5 is cut
    assert counts["traces"] == 40
    assert corpus.manifest.dropped == {"failed_verifier": 20, "truncated": 2}
    assert counts["kept"] == 18 == counts["train"] + counts["validation"]
    assert counts["rejected"] == 22 == len(corpus.table("rejected"))
    assert len(corpus.table("traces")) == counts["train"]
    assert len(corpus.table("soft_labels", "validation")) == counts["validation"]
    assert verify_corpus(corpus) == []


def test_families_hold_what_the_store_holds_row_by_row(make_job: MakeJob) -> None:
    job = make_job(shuffle=3)
    corpus = build(job)
    stored = {
        trace_id(TEACHER_ID, row["prompt_id"], row["sample_index"]): row
        for row in job.store.read(job.finished.select(["part", "row"])).to_pylist()
    }
    light, heavy = all_rows(corpus, "traces"), all_rows(corpus, "soft_labels")
    assert light.schema.equals(TRACES_SCHEMA) and heavy.schema.equals(SOFT_LABELS_SCHEMA)
    assert light["trace_id"].equals(heavy["trace_id"])
    for row, labels in zip(light.to_pylist(), heavy.to_pylist(), strict=True):
        original = stored[row["trace_id"]]
        assert {name: original[name] for name in labels if name != "trace_id"} == {
            name: value for name, value in labels.items() if name != "trace_id"
        }
        assert row["messages"][-1] == {"role": "assistant", "content": original["completion"]}
        assert row["completion_tokens"] == len(labels["completion_token_ids"])


def test_rows_are_in_planned_order_whatever_the_parts(make_job: MakeJob) -> None:
    corpus = build(make_job(shuffle=1, validation={"fraction": 0.0}))
    rows = corpus.table("traces")
    numbers = [int(text.split()[2]) for text in (row[1]["content"] for row in rows["messages"].to_pylist())]
    assert numbers == sorted(numbers)
    assert rows["sample_index"].to_pylist()[:4] == [0, 1, 3, 0]  # sample 2 of prompt 0 is cut


def test_thinking_answer_verdict_and_prompt_columns(make_job: MakeJob) -> None:
    row = build(make_job(validation={"fraction": 0.0}, **JUDGED)).table("traces").slice(0, 1).to_pylist()[0]
    assert row["thinking"].strip() == "add 1"
    assert row["answer"].strip() == "1"
    assert (row["reference"], row["score"], row["passed"], row["source"]) == ("1", 1.0, True, "sums")
    assert row["metadata"] == '{"n": 0}'


def test_messages_start_with_the_system_prompt_that_the_teacher_saw(make_job: MakeJob) -> None:
    own = Prompt([{"role": "system", "content": "Mine."}, {"role": "user", "content": "Hi"}], "sums")
    plain = Prompt([{"role": "user", "content": "Ho"}], "sums")
    traces = [make_trace(own, 0, "a"), make_trace(plain, 0, "b")]
    rows = build(make_job([own, plain], traces, validation={"fraction": 0.0})).table("traces")
    assert [row[0] for row in rows["messages"].to_pylist()] == [
        {"role": "system", "content": "Mine."},
        {"role": "system", "content": "Think."},
    ]


def test_text_prompts_get_no_system_message(make_job: MakeJob) -> None:
    job = make_job(teacher={"prompt_format": "text", "system_prompt": None}, validation={"fraction": 0.0})
    assert build(job).table("traces")["messages"][0].as_py()[0]["role"] == "user"


def test_without_a_judge_nothing_is_scored(make_job: MakeJob) -> None:
    corpus = build(make_job())
    assert all_rows(corpus, "traces")["score"].null_count == corpus.manifest.counts["kept"] == 38
    assert corpus.manifest.statistics["pass_rate"] is None


def test_rejected_rows_keep_their_reason_and_text(make_job: MakeJob) -> None:
    prompts = make_prompts(3)
    traces = [*right_or_wrong(prompts[:2], 1), failed_trace(prompts[2], 0)]
    gone = Prompt([{"role": "user", "content": " "}], "sums", metadata={"n": 9})
    dropped = {
        "prompt_id": gone.prompt_id, "source": "sums", "messages": gone.messages, "reference": None,
        "metadata": "{}", "drop_reason": "empty_prompt", "drop_detail": "row 9",
    }  # fmt: skip
    corpus = build(make_job(prompts, traces, dropped=[dropped], **JUDGED))
    first, second = corpus.table("rejected").to_pylist()
    assert (first["drop_reason"], first["trace_id"], first["sample_index"]) == ("empty_prompt", None, None)
    assert first["messages"] == gone.messages
    assert second["drop_detail"] == "700 tokens, the context holds 512"
    assert [message["role"] for message in second["messages"]] == ["system", "user"]
    assert (second["score"], second["passed"]) == (None, None)
    assert corpus.manifest.counts["rejected"] == 2 == sum(corpus.manifest.dropped.values())


def test_a_verifier_that_fails_drops_the_row_and_says_why(make_job: MakeJob) -> None:
    prompts = [*make_prompts(2), Prompt([{"role": "user", "content": "No reference?"}], "sums")]
    traces = [make_trace(prompt, 0, prompt.reference or "?") for prompt in prompts]
    corpus = build(make_job(prompts, traces, **JUDGED))
    (row,) = corpus.table("rejected").to_pylist()
    assert (row["drop_reason"], row["score"], row["passed"]) == ("verifier_error", None, None)
    assert "reference" in row["drop_detail"]
    assert corpus.manifest.statistics["pass_rate"] == 1.0
    assert verify_corpus(corpus) == []


def test_a_prompt_is_on_one_side_and_stays_there(make_job: MakeJob) -> None:
    prompts = make_prompts(40)
    section = {"validation": {"fraction": 0.3, "seed": 5}}
    corpus = build(make_job(prompts, right_or_wrong(prompts, 2), **section))
    for split, side in (("train", False), ("validation", True)):
        ids = corpus.table("traces", split)["prompt_id"].to_pylist()
        assert ids and all((unit_hash(5, prompt) < 0.3) == side for prompt in ids)


@pytest.mark.parametrize("fraction", [1e-9, 0.999999])
def test_small_corpora_have_both_sides(make_job: MakeJob, fraction: float) -> None:
    prompts = make_prompts(4)
    corpus = build(make_job(prompts, right_or_wrong(prompts, 1), validation={"fraction": fraction}))
    by_hash = sorted((prompt.prompt_id for prompt in prompts), key=lambda name: unit_hash(0, name))
    held_out = set(corpus.table("traces", "validation")["prompt_id"].to_pylist())
    assert held_out == set(by_hash[:1] if fraction < 0.5 else by_hash[:3])


def test_what_answers_one_question_is_on_one_side(make_job: MakeJob) -> None:
    plain = make_prompts(40)
    warm = [replace(prompt, sampling={"temperature": 1.2}) for prompt in plain]
    said = [replace(prompt, completion=f"{way} way") for prompt in plain for way in ("one", "other")]
    prompts = [*plain, *warm, *said]
    corpus = build(make_job(prompts, right_or_wrong(prompts, 1), validation={"fraction": 0.3, "seed": 5}))
    sides = {split: corpus.table("traces", split) for split in ("train", "validation")}
    asked = {split: [row[1]["content"] for row in rows["messages"].to_pylist()] for split, rows in sides.items()}
    assert not set(asked["train"]) & set(asked["validation"])
    assert {split: len(texts) for split, texts in asked.items()} == {
        split: 4 * sum((unit_hash(5, prompt.prompt_id) < 0.3) == away for prompt in plain)
        for split, away in (("train", False), ("validation", True))
    }
    assert len({*sides["validation"]["prompt_id"].to_pylist()}) == len(asked["validation"]) > 0


def test_one_kept_prompt_is_trained_on(make_job: MakeJob) -> None:
    prompts = make_prompts(1)
    corpus = build(make_job(prompts, right_or_wrong(prompts, 1), validation={"fraction": 0.99}))
    assert corpus.splits == ("train",)
    assert verify_corpus(corpus) == []


def test_fraction_zero_holds_out_nothing(make_job: MakeJob) -> None:
    corpus = build(make_job(validation={"fraction": 0.0}))
    assert corpus.splits == ("train",)
    assert corpus.manifest.counts["validation"] == 0


def test_files_are_cut_at_rows_per_file(make_job: MakeJob) -> None:
    corpus = build(make_job(validation={"fraction": 0.0}, storage={"rows_per_file": 15}))
    for family in ("traces", "soft_labels"):
        files = [file for file in corpus.manifest.files if file.path.startswith(family)]
        assert [(file.path, file.rows) for file in files] == [
            (f"{family}/train-00000-of-00003.parquet", 15),
            (f"{family}/train-00001-of-00003.parquet", 15),
            (f"{family}/train-00002-of-00003.parquet", 8),
        ]
    assert verify_corpus(corpus) == []


def test_slices_do_not_change_rows(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(make_job(root=tmp_path / "a"))
    monkeypatch.setattr("distill_data.corpus.cuts.GROUP_TOKENS", 20)
    cut = build(make_job(root=tmp_path / "b"))
    for family in ("traces", "soft_labels"):
        assert all_rows(cut, family).equals(all_rows(whole, family))
    assert pq.ParquetFile(cut.files("soft_labels", "train")[0]).num_row_groups > 5
    for name in ("mean_tail_mass", "mean_support_size", "mean_logprob"):
        assert cut.manifest.statistics[name] == pytest.approx(whole.manifest.statistics[name])


def test_equal_rows_give_equal_bytes(make_job: MakeJob, tmp_path: Path) -> None:
    one = build(make_job(root=tmp_path / "one", shuffle=1, part_rows=3, **JUDGED))
    two = build(make_job(root=tmp_path / "two", shuffle=2, part_rows=11, **JUDGED))
    assert one.manifest.digest == two.manifest.digest
    assert data_files(one) == data_files(two)


def test_the_same_digest_makes_no_new_version(make_job: MakeJob, tmp_path: Path) -> None:
    first = assemble(make_job(), quiet)
    assert assemble(make_job(), quiet) == first
    assert list_versions(tmp_path, "sums") == [1]


def test_a_changed_filter_makes_a_new_version_and_leaves_the_old_one(make_job: MakeJob) -> None:
    one = build(make_job())
    before = data_files(one), (one.path / "manifest.json").read_bytes()
    two = build(make_job(filters={"truncated": False}))
    assert (two.version, two.manifest.counts["kept"]) == (2, 40)
    assert (data_files(one), (one.path / "manifest.json").read_bytes()) == before


def test_nothing_kept_says_why_and_leaves_nothing(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = make_prompts(3)
    traces = [make_trace(prompt, 0, "no idea") for prompt in prompts[:2]] + [failed_trace(prompts[2], 0)]
    with pytest.raises(CorpusError, match=r"every row was dropped: 2 .*1 prompt_too_long.*loosen filters"):
        assemble(make_job(prompts, traces, **JUDGED), quiet)
    assert [path.name for path in (tmp_path / "corpora" / "sums").iterdir()] in ([".lock"], [])


def test_a_failed_write_leaves_no_version(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble_module, "write_card", full)
    with pytest.raises(CorpusError, match="No space left on device"):
        assemble(make_job(), quiet)
    assert list_versions(tmp_path, "sums") == []
    assert list((tmp_path / "corpora" / "sums").glob(".staging-*")) == []


def test_a_reader_never_sees_a_version_that_is_being_written(make_job: MakeJob, tmp_path: Path) -> None:
    seen: list[tuple[int, list[int], int]] = []

    def look(progress: AssemblyProgress) -> None:
        staged = len(list((tmp_path / "corpora" / "sums").glob(".staging-*/traces/*.parquet")))
        seen.append((progress.done, list_versions(tmp_path, "sums"), staged))

    assemble(make_job(), look)
    assert all(versions == [] for _, versions, _ in seen)
    assert seen[-1][0] == 40 and seen[-1][2] == 2


def test_a_lost_race_takes_the_next_number(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def other_was_faster(source: Path, target: Path) -> None:
        if target.name == "v1":
            target.mkdir()
            (target / "manifest.json").write_text("other")
        rename(source, target)

    monkeypatch.setattr(os, "rename", other_was_faster)
    manifest = assemble(make_job(), quiet)
    folder = tmp_path / "corpora" / "sums"
    assert manifest.version == 2
    assert (folder / "v1" / "manifest.json").read_text() == "other"
    assert "sums, version 2" in (folder / "v2" / "README.md").read_text()
    assert open_corpus("sums@v2", tmp_path).manifest == manifest


def test_builders_of_one_corpus_take_turns(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble_module, "_LOCK_SECONDS", 0.1)
    errors: list[str] = []

    def build_meanwhile(progress: AssemblyProgress) -> None:
        with pytest.raises(CorpusError) as caught:
            assemble(make_job(), quiet)
        errors.append(str(caught.value))

    assemble(make_job(validation={"fraction": 0.0}), build_meanwhile)
    assert errors and all("another process has been writing" in error for error in errors)
    assert assemble(make_job(), quiet).version == 2


KILLED = """
import os, signal, sys
import pickle
from distill_data.corpus.assemble import assemble

def die(progress):
    if progress.stage == "write":
        os.kill(os.getpid(), signal.SIGKILL)

assemble(pickle.loads(sys.stdin.buffer.read()), die)
"""


def test_a_killed_build_leaves_no_version_and_is_cleared_away(make_job: MakeJob, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED], input=pickle.dumps(make_job()), check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "corpora" / "sums"
    staged = list(folder.glob(".staging-*/traces/*.parquet"))
    assert staged and list_versions(tmp_path, "sums") == []
    corpus = build(make_job())
    assert verify_corpus(corpus) == []
    assert list(folder.glob(".staging-*")) == []


TEXTS = [
    "这部电影很棒。\n答案 = 四十二",
    "مرحبا بالعالم \u200f 42",
    "हिन्दी में उत्तर: ४२",
    "🙂👩‍👩‍👧 e\u0301 \u00e9",  # é composed and decomposed stay apart
    "line\r\nend \t\u2028 \x00 \x1b[0m trailing  ",
    "```python\nprint('</think>' \"\\n\")\n```",
]


def test_text_in_any_language_survives_byte_for_byte(make_job: MakeJob) -> None:
    prompts = [Prompt([{"role": "user", "content": text}], "sums", text, {"t": text}) for text in TEXTS]
    traces = [make_trace(prompt, 0, text[::-1]) for prompt, text in zip(prompts, TEXTS, strict=True)]
    filters = dict.fromkeys(("truncated", "unfinished_thinking", "missing_answer"), False)
    rows = build(make_job(prompts, traces, filters=filters, validation={"fraction": 0.0})).table("traces")
    for row, text in zip(rows.to_pylist(), TEXTS, strict=True):
        assert [message["content"].encode() for message in row["messages"]] == [
            b"Think.", text.encode(), text[::-1].encode(),
        ]  # fmt: skip
        assert row["reference"] == text


def test_statistics_are_those_of_the_kept_rows(make_job: MakeJob) -> None:
    corpus = build(make_job(**JUDGED))
    labels = all_rows(corpus, "soft_labels").to_pylist()
    figures = corpus.manifest.statistics
    lengths = [len(row["completion_token_ids"]) for row in labels]
    masses = [
        1 - np.exp(np.array(logprobs, np.float64)).sum()
        for row in labels
        for logprobs in np.split(row["support_logprobs"], np.cumsum(row["support_counts"])[:-1])
    ]
    assert figures["completion_tokens_total"] == sum(lengths)
    assert figures["completion_tokens_max"] == max(lengths)
    assert figures["mean_support_size"] == pytest.approx(sum(len(row["support_ids"]) for row in labels) / sum(lengths))
    assert figures["mean_tail_mass"] == pytest.approx(np.clip(masses, 0, 1).mean(), rel=1e-5)
    assert figures["pass_rate"] == pytest.approx(0.5)
    heavy = sum(file.bytes for file in corpus.manifest.files if file.path.startswith("soft_labels/"))
    assert figures["soft_label_bytes_per_token"] == pytest.approx(heavy / sum(lengths))
