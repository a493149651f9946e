"""Conversations as JSON lines, with the teacher's thinking inside its tags: for text-only fine-tuning.

Read: TRL's docs/source/dataset_formats.md (0087e4f) and sft_trainer.md; ms-swift's
docs/source_en/Customization/Custom-dataset.md (025fc6b). What holds there:

- TRL takes `messages`, or `prompt` and `completion` as two lists of messages, and renders them with the student's chat
  template; `text`, or `prompt` and `completion` as two texts, where there is no template. With a completion the loss is
  on the completion alone; on `messages` it is on everything, unless `assistant_only_loss` is set and the template marks
  the assistant's words.
- ms-swift takes `messages`, a system message first where there is one; the loss is on the assistant's words. Other keys
  are dropped.
- Both expect thinking in the assistant's content, between its tags.

Tried with TRL 1.16: SFTTrainer takes both forms of messages, and with `completion` trains on it alone, up to EOS. Tried
with ms-swift 4.6: its loader gives back the messages as they are, and its chatml template labels the assistant's words,
thinking and end of turn included, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from distill_data.corpus.read import Corpus
from distill_data.export.conversion import Conversion
from distill_data.records import Message

Row = dict[str, Any]

_BATCH_ROWS = 1024
_TEMPLATES = "Look at one rendered row first: some chat templates cut the thinking out of the assistant's words."
_TRL = f"""\
```python
from datasets import load_dataset
from trl import SFTTrainer

rows = load_dataset("json", data_files="FOLDER/SPLIT.jsonl", split="train")
SFTTrainer(model="STUDENT", train_dataset=rows).train()
```

{_TEMPLATES}
"""
_SWIFT = f"""\
```
swift sft --model STUDENT --dataset FOLDER/SPLIT.jsonl
```

{_TEMPLATES}
"""
_PLAIN = """\
One trace a line, with the columns of `traces/`: `messages` (the completion is the last one), `thinking`, `answer`,
`reference`, `score`, `passed`, `finish_reason`, `metadata` (JSON in a text), …
"""
_TOKENS = "the teacher's token ids (the text is tokenised again, maybe otherwise) and every distribution"
_COLUMNS = "every other column of traces/ (line i is row i of the corpus' split)"


def plan_trl(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """`messages` for TRL's SFTTrainer; `text` where the teacher was fed plain text."""
    return _lines(corpus, _whole_text if _is_text(corpus) else _messages, _on(splits, _TRL), (_TOKENS, _COLUMNS))


def plan_trl_prompt_completion(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """`prompt` and `completion` for TRL's SFTTrainer: messages, or texts where the teacher was fed plain text."""
    return _lines(corpus, _texts if _is_text(corpus) else _two_parts, _on(splits, _TRL), (_TOKENS, _COLUMNS))


def plan_ms_swift(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """`messages` for `swift sft`."""
    return _lines(corpus, _messages, _on(splits, _SWIFT), (_TOKENS, _COLUMNS))


def plan_jsonl(corpus: Corpus, splits: Sequence[str]) -> Conversion:
    """All columns of `traces/`, for whatever reads JSON lines."""
    return _lines(corpus, dict, _PLAIN, (_TOKENS,))


def with_opening_tag(trace: Row, teacher: Row) -> list[Message]:
    """A trace's messages, with the tag that opens the thinking in the assistant's words.

    The tag is missing there where the chat template wrote it at the end of the prompt. A completion without thinking,
    and one whose thinking a pattern or a parser told from the answer without tags, stay as they are.

    Args:
        trace: a row of TRACES_SCHEMA.
        teacher: the teacher section of the manifest's config.
    """
    *asked, said = trace["messages"]
    reasoning, text = teacher["reasoning"], said["content"]
    opening, closing = reasoning["open_tag"], reasoning["close_tag"]
    closed = bool(closing) and closing in text
    untagged = not closed and bool(reasoning["answer_pattern"] or teacher.get("reasoning_parser"))
    opened = not opening or text.lstrip().startswith(opening) or teacher["prompt_format"] == "text"
    if trace["thinking"] is None or untagged or opened:
        return trace["messages"]
    newline = "" if text.startswith("\n") else "\n"
    return [*asked, {"role": said["role"], "content": f"{opening}{newline}{text}"}]


def _on(splits: Sequence[str], usage: str) -> str:
    return usage.replace("SPLIT", splits[0])


def _lines(corpus: Corpus, row: Callable[[Row], Row], usage: str, lost: tuple[str, ...]) -> Conversion:
    convert = partial(_rows, row=row, teacher=corpus.manifest.config["teacher"])
    return Conversion("traces", "jsonl", _BATCH_ROWS, convert, usage, lost)


def _rows(batch: pa.RecordBatch, row: Callable[[Row], Row], teacher: Row) -> list[Row]:
    return [row({**trace, "messages": with_opening_tag(trace, teacher)}) for trace in batch.to_pylist()]


def _is_text(corpus: Corpus) -> bool:
    return corpus.manifest.config["teacher"]["prompt_format"] == "text"


def _messages(trace: Row) -> Row:
    return {"messages": trace["messages"]}


def _whole_text(trace: Row) -> Row:
    return {"text": "".join(message["content"] for message in trace["messages"])}


def _two_parts(trace: Row) -> Row:
    return {"prompt": trace["messages"][:-1], "completion": trace["messages"][-1:]}


def _texts(trace: Row) -> Row:
    prompt, completion = trace["messages"]
    return {"prompt": prompt["content"], "completion": completion["content"]}
