"""Traces in the tokens of a student that has another tokenizer than its teacher.

The prompt is rendered by the student's own chat template and the teacher's text is tokenised anew, with the student's
EOS where the teacher ended. A token of the student's that starts where one of the teacher's does comes after the same
text, and gets that one's probabilities, likeliest first: whose they are is lost (their ids are ranks from 0). All other
tokens have no soft labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from distill_data.errors import StudentError
from distill_data.records import SOFT_LABEL_FIELDS, SOFT_LABELS_SCHEMA, Message
from distill_data.student.alignment import same_starts, token_starts
from distill_data.teacher_config import Teacher


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
    shown = np.diff(labels.column("prompt_token_ids").offsets.to_numpy()).tolist()
    texts = zip(traces["messages"].to_pylist(), traces["finish_reason"].to_pylist(), shown, strict=True)
    rows = [
        _prompt(messages[:-1], asked, learnt.slice(row, 1), both) | _said(finish, learnt.slice(row, 1), both, aligned)
        for row, (messages, finish, asked) in enumerate(texts)
    ]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in SOFT_LABEL_FIELDS}
    return pa.record_batch({"trace_id": learnt.column("trace_id"), **columns}).cast(SOFT_LABELS_SCHEMA)


def _prompt(asked: list[Message], asked_tokens: int, row: pa.RecordBatch, both: Tokenizers) -> dict[str, np.ndarray]:
    """The prompt's column; behind its `asked_tokens` the teacher's row may have thinking to be read, not learnt."""
    seen = _values(row, "prompt_token_ids")
    ids = _prompt_ids(asked, _text(both.teachers, seen[:asked_tokens]), both)
    ids += _ids(both.own, _text(both.teachers, seen[asked_tokens:]))
    return {"prompt_token_ids": np.array(ids, np.int32)}


def _said(finish: str, row: pa.RecordBatch, both: Tokenizers, aligned: bool) -> dict[str, np.ndarray]:
    """The columns of the completion."""
    tokens, ended = _values(row, "completion_token_ids"), finish == "stop"
    said = tokens[:-1] if ended else tokens
    text = _text(both.teachers, said)
    own = _ids(both.own, text)
    completion = [*own, both.own.eos_token_id] if ended else own
    positions = np.full(len(completion), -1, np.int64)
    if aligned:
        end = [len(text)] if ended else []
        starts = np.concatenate([token_starts(both.own, own, text), np.array(end, np.int64)])
        theirs = np.concatenate([token_starts(both.teachers, said.tolist(), text), np.array(end, np.int64)])
        positions = same_starts(starts, theirs)
    return {
        "completion_token_ids": np.array(completion, np.int32),
        "sampled_logprobs": np.full(len(completion), np.nan, np.float32),  # the teacher never saw these tokens
        **_aligned_support(row, positions),
    }


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


def _prompt_ids(asked: list[Message], rendered: str, both: Tokenizers) -> list[int]:
    """The prompt in the student's words; a thought that the teacher's template opened is open here too."""
    if both.teacher.prompt_format == "text":
        return list(both.own(asked[-1]["content"])["input_ids"])
    options = both.teacher.chat_template_kwargs  # as whoever evaluates the student will render
    text = both.own.apply_chat_template(asked, add_generation_prompt=True, tokenize=False, **options)
    opening = both.teacher.reasoning.open_tag
    if rendered.rstrip().endswith(opening) and not text.rstrip().endswith(opening):
        text += rendered[rendered.rindex(opening) :]
    return _ids(both.own, text)


def _values(row: pa.RecordBatch, name: str) -> np.ndarray:
    return row.column(name)[0].values.to_numpy(zero_copy_only=False)


def _text(tokenizer: Any, ids: Sequence[int] | np.ndarray) -> str:
    return tokenizer.decode(list(map(int, ids)), skip_special_tokens=False) if len(ids) else ""


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
