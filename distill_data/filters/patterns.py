"""Refusals, and what leaks from templates into a text: each is found or not."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.flat_text import Traces, where_said

_OPENING = 300  # characters in which an answer refuses, if it does
_MAY_REFUSE = (
    r"^\W*([Ii]['’ ]|[Ii]m |[Ss]orry|[Uu]nfortunately|[Mm]y apologies|[Aa]s an? |很?抱歉|非常抱歉|十分抱歉|对不起|作为)"  # noqa: RUF001
)
_UNABLE = (
    r"(can(no|['’]?)t|can not|won['’]?t|will not|am unable to|['’]m unable to|am not able to|['’]m not able to"  # noqa: RUF001
    r"|must decline|have to decline)"
)
_TO_HELP = (
    r"(help|assist|provide|comply|fulfil|engage|participate|support|create|generate|write|share|give|discuss|answer"
    r"|respond|do that|offer|complete)"
)
REFUSAL = re.compile(
    rf"\W*((i['’]?m|i am) (very |so |really )?sorry|sorry|unfortunately|i apologi[sz]e|my apologies)"  # noqa: RUF001
    rf"[,.;!:—-]?[^\n]{{0,60}}\bi ?{_UNABLE}[^.\n]{{0,30}}\b{_TO_HELP}"
    rf"|\W*i ?{_UNABLE}( \w+)? {_TO_HELP}[^.\n]{{0,20}}\b(with|that|this|you|your|such|any)\b"
    rf"|\W*as an? (ai|artificial intelligence|(large )?language model)\b[^\n]{{0,80}}\bi ?{_UNABLE}"
    r"|\W*(很?抱歉|对不起|非常抱歉|十分抱歉)[^\n]{0,30}(无法|不能|没办法)[^\n]{0,20}(回答|提供|帮|协助|满足|讨论|完成|生成)"
    r"|\W*作为(一个|一名)?(AI|人工智能|语言模型)[^\n]{0,40}(无法|不能)",
    re.IGNORECASE,
)
"""An answer that opens by refusing. An apology alone does not, nor does "I can't say for sure"."""

LEAKAGE = re.compile(
    r"<\|[A-Za-z_]{2,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>"  # noqa: RUF001 (DeepSeek's full-width bars)
    r"|</?tool_(call|response)>|<(start|end)_of_turn>|</s>\s*<s>"
    r"|^(Human: |USER: |ASSISTANT: |### (Instruction|Response|Input):)",
    re.MULTILINE,
)
"""Parts of chat templates and tool calls that stand in a text."""

_MARKS = (
    b"<|", "<｜".encode(), b"[INST]",  # noqa: RUF001
    b"[/INST]", b"<<SYS>>", b"<</SYS>", b"<tool_ca", b"<tool_re", b"</tool_c",
    b"</tool_r", b"<start_o", b"<end_of_", b"</s>",
    b"\nHuman: ", b"\nUSER: ", b"\nASSISTA", b"\n### Ins", b"\n### Res", b"\n### Inp",
)  # fmt: skip


def refusal(traces: Traces) -> np.ndarray:
    """1 where `answer` begins as a refusal, in English or Chinese; 0 where not; NaN where there is none.

    Only answers that begin with a word that refusals begin with are looked at closely.
    """
    openings = pc.utf8_slice_codeunits(traces["answer"], 0, _OPENING)
    maybe = np.asarray(pc.match_substring_regex(pc.fill_null(openings, ""), _MAY_REFUSE))
    return where_said(np.asarray(pc.is_valid(openings)), _where_any(openings, maybe, REFUSAL.match))


def leakage(traces: Traces) -> np.ndarray:
    """1 where parts of a chat template or tool call stand in `completion`, 0 where not.

    Only texts that have the first bytes of one of these are looked at closely.
    """
    text = traces.completion
    return where_said(text.valid, _where_any(traces["completion"], text.rows_with(_MARKS), LEAKAGE.search))


def _where_any(texts: pa.ChunkedArray, maybe: np.ndarray, found_in: Callable[[str], object]) -> np.ndarray:
    """In which of the texts that may have something it is found: bool [R]."""
    found = np.zeros(len(maybe), bool)
    rows = np.flatnonzero(maybe)
    found[rows] = [found_in(text) is not None for text in texts.take(pa.array(rows)).to_pylist()]
    return found
