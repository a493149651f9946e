from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from distill_data.corpus.assemble import assemble
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.export import export_corpus
from distill_data.export.text import with_opening_tag
from distill_data.records import TRACES_SCHEMA, Prompt
from tests.unit.corpus.conftest import MakeJob, make_trace

Row = dict[str, Any]

CONVERSATION_KEYS = {"trl": ["messages"], "trl-prompt-completion": ["prompt", "completion"], "ms-swift": ["messages"]}


def lines(corpus: Corpus, format: str, folder: Path) -> dict[str, list[Row]]:
    export_corpus(corpus, format, folder)
    texts = {split: (folder / f"{split}.jsonl").read_text(encoding="utf-8") for split in corpus.splits}
    return {split: [json.loads(line) for line in text.split("\n")[:-1]] for split, text in texts.items()}


@pytest.mark.parametrize("format", CONVERSATION_KEYS)
def test_conversations_are_the_corpus_own(corpus: Corpus, tmp_path: Path, format: str) -> None:
    written = lines(corpus, format, tmp_path / "out")
    assert set(written) == set(corpus.splits)
    for split, rows in written.items():
        whole = [trace["messages"] for trace in corpus.table("traces", split).to_pylist()]
        assert [list(row) for row in rows] == [CONVERSATION_KEYS[format]] * len(whole)
        assert [[message for value in row.values() for message in value] for row in rows] == whole
        assert all([message["role"] for message in row] == ["system", "user", "assistant"] for row in whole)
        said = [row[-1]["content"] for row in whole]
        assert all(text.startswith("<think>\nwägen ") and "很好 🙂" in text for text in said)


@pytest.mark.parametrize("format", [*CONVERSATION_KEYS, "jsonl"])
def test_plain_datasets_load_the_lines(corpus: Corpus, tmp_path: Path, format: str) -> None:
    written = lines(corpus, format, tmp_path / "out")
    loaded: Any = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {split: len(rows) for split, rows in written.items()}
    for split, rows in written.items():
        for name in rows[0]:
            assert loaded[split][name][:] == [row[name] for row in rows]


def test_unicode_is_written_as_it_is(corpus: Corpus, tmp_path: Path) -> None:
    export_corpus(corpus, "trl", tmp_path / "out")
    text = (tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8")
    assert "很好 🙂" in text and "“ß”" in text and "\\u" not in text


def test_plain_lines_hold_all_columns(corpus: Corpus, tmp_path: Path) -> None:
    for split, rows in lines(corpus, "jsonl", tmp_path / "out").items():
        assert list(rows[0]) == TRACES_SCHEMA.names
        assert rows == corpus.table("traces", split).to_pylist()


def test_a_completion_is_the_last_message_alone(corpus: Corpus, tmp_path: Path) -> None:
    for row in lines(corpus, "trl-prompt-completion", tmp_path / "out")["train"]:
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert [message["role"] for message in row["completion"]] == ["assistant"]


def test_a_tag_that_the_template_opened_is_put_back(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = [Prompt([{"role": "user", "content": f"{n}?"}], "sums") for n in range(4)]
    suffix = {"prompt_suffix": "<|im_start|>assistant\n<think>\n"}
    traces = [
        make_trace(prompts[0], 0, "add 1\n</think>\n\n2", **suffix),
        make_trace(prompts[1], 0, "\nadd 1\n</think>\n\n2", **suffix),
        make_trace(prompts[2], 0, "never closed", **suffix),
        make_trace(prompts[3], 0, "no thinking"),
    ]
    filters = {"unfinished_thinking": False, "missing_answer": False}
    assemble(make_job(prompts, traces, filters=filters, validation={"fraction": 0.0}), lambda progress: None)
    corpus = open_corpus("sums@v1", tmp_path)
    rows = lines(corpus, "trl", tmp_path / "out")["train"]
    assert [row["messages"][-1]["content"] for row in rows] == [
        "<think>\nadd 1\n</think>\n\n2",
        "<think>\nadd 1\n</think>\n\n2",
        "<think>\nnever closed",
        "no thinking",
    ]


REASONING = {"open_tag": "<think>", "close_tag": "</think>", "answer_pattern": None}
CHAT = {"prompt_format": "chat", "reasoning": REASONING, "reasoning_parser": None}
UNCHANGED: dict[str, tuple[str, str | None, Row]] = {
    "the teacher wrote the tag": ("\n <think>a</think>b", "a", CHAT),
    "no thinking": ("b </think> in words", None, CHAT),
    "split by a pattern": ("a Answer: b", "a", CHAT | {"reasoning": REASONING | {"answer_pattern": "Answer: (.*)"}}),
    "split by a parser": ("a [answer] b", "a", CHAT | {"reasoning_parser": "other"}),
    "plain text has no template": ("a</think>b", "a", CHAT | {"prompt_format": "text"}),
    "an empty tag never comes": ("a</think>b", "a", CHAT | {"reasoning": REASONING | {"open_tag": ""}}),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_no_tag_is_made_up(case: str) -> None:
    text, thinking, teacher = UNCHANGED[case]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    assert with_opening_tag({"messages": messages, "thinking": thinking}, teacher) == messages


def test_other_tags_are_put_back_too() -> None:
    teacher = CHAT | {"reasoning": REASONING | {"open_tag": "[THINK]", "close_tag": "[/THINK]"}}
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a[/THINK]b"}]
    trace = {"messages": messages, "thinking": "a"}
    assert with_opening_tag(trace, teacher)[-1]["content"] == "[THINK]\na[/THINK]b"
    assert messages[-1]["content"] == "a[/THINK]b"


def test_plain_text_prompts_stay_plain_text(make_job: MakeJob, tmp_path: Path) -> None:
    prompts = [Prompt([{"role": "user", "content": "Es war "}], "sums")]
    text = {"prompt_format": "text", "system_prompt": None}
    job = make_job(prompts, [make_trace(prompts[0], 0, "einmal")], teacher=text, validation={"fraction": 0.0})
    assemble(job, lambda progress: None)
    corpus = open_corpus("sums@v1", tmp_path)
    assert lines(corpus, "trl", tmp_path / "a")["train"] == [{"text": "Es war einmal"}]
    assert lines(corpus, "trl-prompt-completion", tmp_path / "b")["train"] == [
        {"prompt": "Es war ", "completion": "einmal"}
    ]
