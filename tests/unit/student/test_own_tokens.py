from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.errors import StudentError
from distill_data.reasoning import split_completion
from distill_data.records import SOFT_LABELS_SCHEMA, Prompt
from distill_data.student.own_tokens import Tokenizers, in_own_tokens
from distill_data.student.thinking import closing_token, cut_thinking
from distill_data.teacher_config import Reasoning, Teacher
from distill_data.teachers.rendering import render_prompts
from tests.tiny_model import make_tokenizer
from tests.unit.student.other_tokenizers import make_metaspace_tokenizer

TEACHER = Teacher(model="a/b")
QUESTION = [{"role": "user", "content": "What is 12 + 30?"}]
SAID = ["<think>12 + 30 is 42 🙂</think>Answer: 42", "Answer: 7", "dog"]
FINISH = ["stop", "length", "stop"]


@pytest.fixture(scope="module")
def both() -> Tokenizers:
    teachers = make_tokenizer(more_special_tokens=["<think>", "</think>"])
    return Tokenizers(make_metaspace_tokenizer(), teachers, TEACHER)


def said_by_teacher(both: Tokenizers, prompt_end: str = "") -> tuple[pa.Table, pa.RecordBatch]:
    """Traces and their soft labels: at its token t of row r a teacher with t + r + 1 entries, -t first among them."""
    prompt = both.teachers.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False) + prompt_end
    rows, texts = [], []
    for row, (text, finish) in enumerate(zip(SAID, FINISH, strict=True)):
        ids = both.teachers(text, add_special_tokens=False)["input_ids"]
        ids += [both.teachers.eos_token_id] if finish == "stop" else []
        counts = np.arange(len(ids)) + row + 1
        support = [[-float(token), *range(-100, -100 - token - row, -1)] for token in range(len(ids))]
        rows.append({
            "trace_id": str(row),
            "prompt_token_ids": both.teachers(prompt, add_special_tokens=False)["input_ids"],
            "completion_token_ids": ids,
            "sampled_logprobs": [-1.0] * len(ids),
            "support_counts": counts.tolist(),
            "support_ids": [5] * int(counts.sum()),
            "support_logprobs": np.concatenate(support).astype(np.float16),
        })  # fmt: skip
        texts.append({"messages": [*QUESTION, {"role": "assistant", "content": text}], "finish_reason": finish})
    batch = pa.Table.from_pylist(rows, SOFT_LABELS_SCHEMA).combine_chunks().to_batches()[0]
    return pa.Table.from_pylist(texts), batch


def test_the_student_gets_the_same_words_in_its_own_tokens(both: Tokenizers) -> None:
    traces, labels = said_by_teacher(both)
    own = in_own_tokens(traces, labels, labels, both, aligned=True)
    assert own.schema.equals(SOFT_LABELS_SCHEMA)
    rendered = both.own.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    for row, text, finish in zip(own.to_pylist(), SAID, FINISH, strict=True):
        assert both.own.decode(row["prompt_token_ids"]) == rendered
        ids = row["completion_token_ids"]
        assert (ids[-1] == both.own.eos_token_id) == (finish == "stop")
        assert both.own.decode(ids[:-1] if finish == "stop" else ids) == text


def test_distributions_stand_where_the_teacher_had_said_the_same(both: Tokenizers) -> None:
    traces, labels = said_by_teacher(both)
    own = in_own_tokens(traces, labels, labels, both, aligned=True)
    for number, (row, asked) in enumerate(zip(own.to_pylist(), labels.to_pylist(), strict=True)):
        ids, counts, place = row["completion_token_ids"], row["support_counts"], 0
        teacher_said = [
            both.teachers.decode(asked["completion_token_ids"][:t]) for t in range(len(asked["completion_token_ids"]))
        ]
        assert counts[0] and (counts[-1] or FINISH[number] != "stop")  # before the first word, and before EOS
        for token, count in enumerate(counts):
            support, ranks = row["support_logprobs"][place : place + count], row["support_ids"][place : place + count]
            place += count
            prefix = both.own.decode(ids[:token])
            assert (count > 0) == (prefix in teacher_said)
            if count:
                teachers = -int(support[0])
                assert teacher_said[teachers] == prefix
                assert count == teachers + number + 1
                assert ranks == list(range(count))
        assert place == len(row["support_ids"])


def test_without_alignment_there_are_no_distributions(both: Tokenizers) -> None:
    traces, labels = said_by_teacher(both)
    own = in_own_tokens(traces, labels, labels, both, aligned=False)
    assert own.column("completion_token_ids") == in_own_tokens(traces, labels, labels, both, aligned=True).column(
        "completion_token_ids"
    )
    assert set(np.concatenate(own.column("support_counts").to_pylist()).tolist()) == {0}


@pytest.mark.parametrize("how", ["mask", "drop"])
def test_thinking_is_read_or_left_out(both: Tokenizers, how: Any) -> None:
    traces, labels = said_by_teacher(both)
    learnt = cut_thinking(labels, closing_token(both.teachers, "</think>"), how)
    row = in_own_tokens(traces, labels, learnt, both, aligned=True).to_pylist()[0]
    assert both.own.decode(row["completion_token_ids"][:-1]) == "Answer: 42"
    assert row["support_counts"][0]
    read = both.own.decode(row["prompt_token_ids"])
    assert read.endswith("<think>12 + 30 is 42 🙂</think>" if how == "mask" else "assistant\n")


def opening(tokenizer: Any) -> Any:
    """A tokenizer whose template opens the thought, as DeepSeek-R1's does."""
    there = str(tokenizer.chat_template)
    tokenizer.chat_template = there + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"
    return tokenizer


def labelled(row: dict[str, Any]) -> list[tuple[int, int]]:
    """The tokens that have a distribution, and which of the teacher's each comes from."""
    counts = np.array(row["support_counts"])
    begins = np.cumsum(counts) - counts
    return [(at, -int(row["support_logprobs"][begins[at]])) for at in np.flatnonzero(counts).tolist()]


def test_a_thought_that_only_the_teachers_template_opens_is_opened_by_the_student(both: Tokenizers) -> None:
    """Its own prompts end before it."""
    own_prompt = both.own.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    traces, labels = said_by_teacher(both, "<think>\n")
    for found, text, finish in zip(
        in_own_tokens(traces, labels, labels, both, aligned=True).to_pylist(), SAID, FINISH, strict=True
    ):
        assert both.own.decode(found["prompt_token_ids"]) == own_prompt
        ids = found["completion_token_ids"]
        assert both.own.decode(ids[:-1] if finish == "stop" else ids) == f"<think>\n{text}"
    row = in_own_tokens(traces, labels, labels, both, aligned=True).to_pylist()[1]
    said = labels.column("completion_token_ids")[1].as_py()
    for at, teachers in labelled(row):
        read = both.own.decode(row["completion_token_ids"][:at])
        assert read == "<think>\n" + both.teachers.decode(said[:teachers])
    assert len(labelled(row)) > 1


def test_a_thought_that_only_the_students_template_opens_is_not_opened_again(both: Tokenizers) -> None:
    pair = Tokenizers(opening(make_metaspace_tokenizer()), both.teachers, TEACHER)
    traces, labels = said_by_teacher(both)
    row = in_own_tokens(traces, labels, labels, pair, aligned=True).to_pylist()[0]
    assert pair.own.decode(row["prompt_token_ids"]).endswith("assistant\n<think>\n")
    assert pair.own.decode(row["completion_token_ids"][:-1]) == SAID[0].removeprefix("<think>")
    said = labels.column("completion_token_ids")[0].as_py()
    assert labelled(row)[0] == (0, len(both.teachers("<think>", add_special_tokens=False)["input_ids"]))
    for at, teachers in labelled(row):
        assert "<think>" + pair.own.decode(row["completion_token_ids"][:at]) == both.teachers.decode(said[:teachers])


def test_a_teacher_that_did_not_think_has_the_students_thought_closed(both: Tokenizers) -> None:
    """Else all that the student says would be a thought, and none of it an answer."""
    pair = Tokenizers(opening(make_metaspace_tokenizer()), both.teachers, TEACHER)
    traces, labels = said_by_teacher(both)
    for number in (1, 2):
        row = in_own_tokens(traces, labels, labels, pair, aligned=True).to_pylist()[number]
        ids = row["completion_token_ids"][:-1] if FINISH[number] == "stop" else row["completion_token_ids"]
        assert pair.own.decode(ids) == f"</think>\n\n{SAID[number]}"
        split = split_completion(f"</think>\n\n{SAID[number]}", "<think>\n", Reasoning())
        assert split.finished and split.answer == SAID[number]
        said = labels.column("completion_token_ids")[number].as_py()
        for at, teachers in labelled(row):
            read = pair.own.decode(row["completion_token_ids"][:at])
            assert read == "</think>\n\n" + both.teachers.decode(said[:teachers])


@pytest.mark.parametrize("how", ["mask", "drop"])
@pytest.mark.parametrize("students_opens", [False, True])
def test_what_a_student_does_not_learn_of_a_thought_fits_its_own_template(
    both: Tokenizers, how: Any, students_opens: bool
) -> None:
    own = make_metaspace_tokenizer()
    pair = Tokenizers(opening(own) if students_opens else own, both.teachers, TEACHER)
    traces, labels = said_by_teacher(both)
    opened = np.full(len(labels), pair.opens_thought)
    learnt = cut_thinking(labels, closing_token(both.teachers, "</think>"), how, opened)
    row = in_own_tokens(traces, labels, learnt, pair, aligned=True).to_pylist()[0]
    read, said = pair.own.decode(row["prompt_token_ids"]), pair.own.decode(row["completion_token_ids"][:-1])
    whole = read + said
    assert whole.count("<think>") == whole.count("</think>") == int(students_opens or how == "mask")
    assert said == ("</think>Answer: 42" if how == "drop" and students_opens else "Answer: 42")


def test_prompts_are_those_that_the_student_is_evaluated_with(both: Tokenizers) -> None:
    own = make_metaspace_tokenizer()
    own.chat_template = (own.chat_template or "") + "{% if today is defined %}{{ today }}{% endif %}"  # type: ignore[operator]
    teacher = Teacher(model="a/b", chat_template_kwargs={"today": "1 May"})
    pair = Tokenizers(own, both.teachers, teacher)
    traces, labels = said_by_teacher(both)
    row = in_own_tokens(traces, labels, labels, pair, aligned=True).to_pylist()[0]
    (evaluated,) = render_prompts([Prompt(QUESTION, "s")], own, teacher)  # type: ignore[arg-type]
    assert row["prompt_token_ids"] == evaluated.token_ids
    assert str(own.decode(evaluated.token_ids)).endswith("1 May")


def test_a_tokenizer_that_cannot_write_prompts_or_ends_is_refused(both: Tokenizers) -> None:
    silent = make_metaspace_tokenizer()
    silent.chat_template = None
    with pytest.raises(StudentError, match="no chat template to render prompts with: add"):
        Tokenizers(silent, both.teachers, TEACHER)
    Tokenizers(silent, both.teachers, Teacher(model="a/b", prompt_format="text"))
    silent.eos_token = None
    with pytest.raises(StudentError, match="no EOS token: set eos_token"):
        Tokenizers(silent, both.teachers, TEACHER)
