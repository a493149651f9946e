"""Code where the prompt asked for none."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.flat_text import Traces, marks, where_said

# What a prompt says that asks for code. Too wide rather than too narrow: then nothing is dropped.
ASKS_FOR_CODE = (
    r"(?i)```|\b(code|coding|codebase|program(s|ming|mer)?|pseudocode|python|java|javascript|typescript|rust|golang|sql"
    r"|query|html|css|bash|shell|scripts?|regex|json|yaml|xml|latex|algorithms?|implement|implementation|debug|compiler?"
    r"|unit tests?|api|write a function)\b|\bc(\+\+|#)|代码|编程|程序|脚本|算法|コード|プログラム"
)
# How lines of code begin, after indentation, and lines of prose do not; at most 8 bytes each.
STARTS = (
    b"def |elif |import |#include|return |return;|const |var |public |private |static |print(|printf(|console.|struct "
    b"|fn |func |function|package |try:|else:|except:|SELECT |INSERT |<?php|#!/|std::|int |void |}"
).split(b"|")
# These begin lines of prose too, and are code where the line ends as code does.
OPENINGS = b"for |for(|if |if (|while |while(|class |with |switch |else |let |from ".split(b"|")
_OPENS = np.isin(np.arange(256), list(b":{;"))  # how lines that begin so end
_ENDS = (b");", b"];", b"};", b"){", b") {", b"++;", b"--;")
_FENCES = (b"```", b"~~~")
_MARKS = tuple(marks(some) for some in (_FENCES, STARTS, OPENINGS, _ENDS))


def code_share(traces: Traces) -> np.ndarray:
    """Share of `completion`'s bytes that stand in fences or in lines that look like code; blanks at ends are left out.

    NaN where there is code and `prompt` asks for it, and where there is no text. Fences are lines that begin with three
    backquotes or tildes; one that is never closed reaches to the end. DeepSeek-R1 dropped code blocks from thoughts
    (DeepSeek-AI, 2025, 2.3.3).
    """
    from distill_data.filters.text_loops import code_bytes

    text = traces.completion
    whole, code = code_bytes(text.bytes, text.offsets, _MARKS, _OPENS)
    some = np.flatnonzero(code)
    prompts = pc.fill_null(traces["prompt"].take(pa.array(some)), "")
    said = text.valid & (whole > 0)
    said[some] = ~np.asarray(pc.match_substring_regex(prompts, ASKS_FOR_CODE))
    return where_said(said, code / np.maximum(whole, 1))
