"""Every measure once more, in plain Python, a row at a time: what the fast ones have to agree with."""

from __future__ import annotations

import math
import re

import numpy as np

from distill_data.filters.code_lines import ASKS_FOR_CODE, OPENINGS, STARTS
from distill_data.filters.scripts import SCRIPTS

CJK_START = "\u3000"


def longest_paragraph(text: str) -> int:
    lines = text.split("\n")
    blank = [len(line.encode()) <= 1 and all(ord(character) <= 32 for character in line) for line in lines]
    paragraphs: list[list[str]] = [[]]
    for line, is_blank in zip(lines, blank, strict=True):
        paragraphs += [[]] if is_blank else []
        paragraphs[-1] += [] if is_blank else [line]
    return max(len("\n".join(lines)) for lines in paragraphs)


def words(text: str) -> list[str]:
    """Words with the white space behind them; from U+3000 on every character begins one."""
    found: list[str] = []
    before = " "
    for character in text + "\n":
        begins = character >= CJK_START or (ord(character) > 32 and ord(before) <= 32)
        if begins:
            found.append(character)
        elif found:
            found[-1] += character
        before = character
    return found


def repetition(text: str) -> float:
    said = words(text)
    runs = [tuple(said[start : start + 10]) for start in range(len(said) - 9)]
    return (len(runs) - len(set(runs))) / len(runs) if runs else math.nan


def script_of(character: str) -> str | None:
    for script, blocks in SCRIPTS.items():
        if any(first <= ord(character) <= last for first, last in blocks):
            return script
    return None


def other_script_share(text: str) -> float:
    """Of a text without formulas, code, tags and links."""
    counts: dict[str, int] = {}
    scripts = [script_of(character) for character in text]
    for place, script in enumerate(scripts):
        following = scripts[place + 1] if place + 1 < len(scripts) else None
        begins = place == 0 or scripts[place - 1] != script
        if script is not None and (script == "Han and kana" or (begins and following == script)):
            counts[script] = counts.get(script, 0) + 1
    return 1 - max(counts.values()) / sum(counts.values()) if counts else 0.0


def code_share(text: str, prompt: str) -> float:
    total = code = 0
    fenced = False
    for line in text.encode().split(b"\n"):
        said = line.lstrip(b" \t")
        fence = said.startswith((b"```", b"~~~"))
        looks = said.startswith(tuple(STARTS)) or (
            said.startswith(tuple(OPENINGS)) and said.endswith((b":", b"{", b";"))
        )
        looks = looks or said.endswith((b");", b"];", b"};", b"){", b") {", b"++;", b"--;"))
        total += len(said)
        code += len(said) * (fence or fenced or looks)
        fenced ^= fence
    if not total or (code and re.search(ASKS_FOR_CODE, prompt)):
        return math.nan
    return code / total


def mean_entropy(counts: list[int], logprobs: list[float]) -> float:
    found: list[float] = []
    start = 0
    for count in counts:
        kept = [float(np.float16(value)) for value in logprobs[start : start + count]]
        start += count
        if not kept:
            continue
        tail = min(max(1.0 - math.fsum(math.exp(value) for value in kept), 0.0), 1.0)
        terms = [-math.exp(value) * value for value in kept if value > -math.inf]
        found.append(math.fsum(terms) - (tail * math.log(tail) if tail > 1e-30 else 0.0))
    return math.fsum(found) / len(found) if found else math.nan
