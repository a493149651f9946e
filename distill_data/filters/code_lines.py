"""Code where the prompt asked for none."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.flat_text import FlatText, Traces, reduce_rows, where_said

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
_DEEPEST = 64  # bytes of indentation that are looked through


def code_share(traces: Traces) -> np.ndarray:
    """Share of `completion`'s bytes that stand in fences or in lines that look like code; blanks at ends are left out.

    NaN where there is code and `prompt` asks for it, and where there is no text. Fences are lines that begin with three
    backquotes or tildes; one that is never closed reaches to the end. DeepSeek-R1 dropped code blocks from thoughts
    (DeepSeek-AI, 2025, 2.3.3).
    """
    text = traces.completion
    breaks = text.newlines
    ends = breaks[1:]
    starts = _after_blanks(text, breaks[:-1] + 1)
    lengths = np.maximum(ends - starts, 0)
    is_code = _in_fences(text, starts, ends) | _looks_like_code(text, starts, ends)
    lines = np.searchsorted(ends, text.offsets)  # of every row, the first
    whole = reduce_rows(np.add, lengths, lines, 0)
    code = reduce_rows(np.add, lengths * is_code, lines, 0)
    some = np.flatnonzero(code)
    prompts = pc.fill_null(traces["prompt"].take(pa.array(some)), "")
    said = text.valid & (whole > 0)
    said[some] = ~np.asarray(pc.match_substring_regex(prompts, ASKS_FOR_CODE))
    return where_said(said, code / np.maximum(whole, 1))


def _after_blanks(text: FlatText, starts: np.ndarray) -> np.ndarray:
    """Where lines start, or end, behind their indentation."""
    starts = starts.copy()
    moving = np.arange(len(starts))
    for _ in range(_DEEPEST):
        byte = text.bytes[starts[moving]]  # a newline where the line ends
        moving = moving[(byte == ord(" ")) | (byte == ord("\t"))]
        starts[moving] += 1
    return starts


def _in_fences(text: FlatText, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which lines are fences or stand between two."""
    fences = text.begin_with(starts, (b"```", b"~~~"))
    if not fences.any():
        return fences
    before = np.cumsum(fences) - fences
    lines = np.searchsorted(ends, text.offsets)
    earlier = np.repeat(before[np.minimum(lines[:-1], len(before) - 1)], np.diff(lines))  # of the rows above
    return fences | ((before - earlier) % 2 == 1)


def _looks_like_code(text: FlatText, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    last = np.maximum(ends - 1, 0)
    ends_open = _OPENS[text.bytes[last]]
    found = text.begin_with(starts, STARTS)
    maybe = np.flatnonzero(ends_open & ~found)
    found[maybe] = text.begin_with(starts[maybe], OPENINGS)
    for end in _ENDS:
        at = ends[maybe] - len(end)
        fits = at >= starts[maybe]
        for step, byte in enumerate(end):
            fits &= text.bytes[np.maximum(at, 0) + step] == byte
        found[maybe] |= fits
    return found & (starts < ends)
