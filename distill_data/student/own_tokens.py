"""Traces in the tokens of a student that has another tokenizer than its teacher.

The prompt is rendered by the student's own chat template and the teacher's text is tokenised anew, with the student's
EOS where the teacher ended. A token of the student's that starts where one of the teacher's does comes after the same
text, and gets that one's probabilities, likeliest first: whose they are is lost (their ids are ranks from 0). All other
tokens have no soft labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS, SOFT_LABELS_SCHEMA, Message
from distill_data.student.alignment import same_starts, token_starts
from distill_data.student.thinking import behind_closed_thought
from distill_data.teacher_config import Teacher

_SEEN = ("prompt_token_ids", "completion_token_ids")


@dataclass(frozen=True)
class Tokenizers:
    """The student's own tokenizer and the teacher's; `teacher` is the config's, for its prompt format and its tags."""

    own: Any
    teachers: Any
    teacher: Teacher

    def __post_init__(self) -> None:
        """Raises StudentError where the student's cannot write a prompt or an end."""
        if self.own.eos_token_id is None:
            raise StudentError("the student's tokenizer has no EOS token: set eos_token in its tokenizer_config.json")
        if self.teacher.prompt_format == "chat" and not self.own.chat_template:
            raise StudentError(
                "the student's tokenizer has no chat template to render prompts with: add chat_template.jinja to its "
                "folder, or set student.tokenizer: teacher"
            )

    def prompt_ids(self, asked: list[Message]) -> list[int]:
        """The prompt by the student's own template, as whoever evaluates the student will render it."""
        if self.teacher.prompt_format == "text":
            return list(self.own(asked[-1]["content"])["input_ids"])
        return _ids(self.own, self._rendered(asked))

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the student's own template ends its prompts in an open thought."""
        probe: list[Message] = [{"role": "user", "content": "?"}]
        return self.teacher.prompt_format == "chat" and self._opened(self._rendered(probe))

    def after_own_prompt(self, said: str, rendered: str) -> str:
        """What the student is to say where its teacher said `said` behind `rendered`.

        A thought that only the teacher's template opens is opened by the student, and one that only the student's
        template opens is not opened again: else it would be asked with other prompts than it has learnt. There a
        teacher that did not think has the thought closed first, or all would be a thought.
        """
        if self.teacher.prompt_format == "text" or self._opened(rendered) == self.opens_thought:
            return said
        tag, close = self.teacher.reasoning.open_tag, self.teacher.reasoning.close_tag
        if not self.opens_thought:
            return rendered[rendered.rindex(tag) :] + said
        if said.startswith(tag):
            return said.removeprefix(tag).lstrip()
        return said if close in said else behind_closed_thought(said, close)

    def _rendered(self, asked: list[Message]) -> str:
        options = self.teacher.chat_template_kwargs
        return self.own.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **options)

    def _opened(self, rendered: str) -> bool:
        tag = self.teacher.reasoning.open_tag
        return bool(tag) and rendered.rstrip().endswith(tag)


def in_own_tokens(
    traces: pa.Table, labels: pa.RecordBatch, learnt: pa.RecordBatch, both: Tokenizers, *, aligned: bool
) -> pa.RecordBatch:
    """Rows of SOFT_LABELS_SCHEMA in the student's tokens.

    Args:
        traces: `messages` and `finish_reason` of the same rows.
        labels: the rows as the teacher saw them.
        learnt: the same rows as the student is to learn them: thinking may have moved to the prompt, or be gone.
        both: the tokenizers.
        aligned: give soft labels to the tokens that start where the teacher's do; else no token has any.
    """
    shown, said = (np.diff(labels.column(name).offsets.to_numpy()).tolist() for name in _SEEN)
    texts = zip(traces["messages"].to_pylist(), traces["finish_reason"].to_pylist(), shown, said, strict=True)
    rows = [
        _in_own_tokens(_Said(messages[:-1], finish, asked, tokens, learnt.slice(row, 1)), both, aligned)
        for row, (messages, finish, asked, tokens) in enumerate(texts)
    ]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in SOFT_LABEL_FIELDS}
    return pa.record_batch({"trace_id": learnt.column("trace_id"), **columns}).cast(SOFT_LABELS_SCHEMA)


@dataclass(frozen=True)
class _Said:
    """What was asked, how the teacher ended, the tokens that it was shown and said, and the row that is learnt."""

    asked: list[Message]
    finish: str
    shown: int
    said: int
    row: pa.RecordBatch


def _in_own_tokens(trace: _Said, both: Tokenizers, aligned: bool) -> dict[str, np.ndarray]:
    """The columns of one row. Thinking that is read, not learnt, stands behind what the teacher was shown."""
    seen, tokens = _values(trace.row, "prompt_token_ids"), _values(trace.row, "completion_token_ids")
    rendered, read = _text(both.teachers, seen[: trace.shown]), _text(both.teachers, seen[trace.shown :])
    prompt = both.prompt_ids(trace.asked)
    if read:
        prompt += _ids(both.own, both.after_own_prompt(read, rendered))
    said = tokens[:-1] if trace.finish == "stop" else tokens
    text = own_text = _text(both.teachers, said)
    if not read and len(tokens) == trace.said:  # else its thinking is not to be learnt
        own_text = both.after_own_prompt(text, rendered)
    own = _ids(both.own, own_text)
    ends = [] if len(said) == len(tokens) else [both.own.eos_token_id]
    positions = np.full(len(own) + len(ends), -1, np.int64)
    if aligned:
        starts = _starts(both.own, own, own_text, len(ends))
        theirs = _starts(both.teachers, said.tolist(), text, len(ends))
        positions = same_starts(starts, np.where(theirs < 0, theirs, theirs + len(own_text) - len(text)))
    return {
        "prompt_token_ids": np.array(prompt, np.int32),
        "completion_token_ids": np.array([*own, *ends], np.int32),
        "sampled_logprobs": np.full(len(positions), np.nan, np.float32),  # the teacher never saw these tokens
        **_aligned_support(trace.row, positions),
    }


def _starts(tokenizer: Any, ids: list[int], text: str, ends: int) -> np.ndarray:
    """Where every token of a text starts, and where it ends for its EOS, if it has one."""
    return np.concatenate([token_starts(tokenizer, ids, text), np.full(ends, len(text), np.int64)])


def _aligned_support(row: pa.RecordBatch, positions: np.ndarray) -> dict[str, np.ndarray]:
    """The teacher's support at these of its positions, one after the other; none where a position is -1."""
    counts = _values(row, "support_counts").astype(np.int64)
    begins = np.cumsum(counts) - counts
    taken = np.where(positions >= 0, counts[positions], 0)
    ranks = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
    entries = np.repeat(begins[positions], taken) + ranks
    return {
        "support_counts": taken.astype(np.uint8),
        "support_ids": ranks.astype(np.int32),
        "support_logprobs": _values(row, "support_logprobs")[entries],
    }


def _values(row: pa.RecordBatch, name: str) -> np.ndarray:
    return row.column(name)[0].values.to_numpy(zero_copy_only=False)


def _text(tokenizer: Any, ids: Sequence[int] | np.ndarray) -> str:
    return tokenizer.decode(list(map(int, ids)), skip_special_tokens=False) if len(ids) else ""


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
