r"""The final answer is mathematically the reference, as math-verify decides (https://github.com/huggingface/math-verify).

Three things are done around it:

- Only its LaTeX grammar reads answers. Its extraction from plain text hands the text to sympy's `parse_expr`, which
  evaluates it as Python; plain numbers are read by `numbers` instead. Of LaTeX, sympy evaluates single number literals
  of the grammar and nothing else.
- Its own time limits are off: they use SIGALRM, which works in a main thread only. A comparison of two expressions can
  take any time and memory (`9^{9^{9}}`), so this verifier belongs into a process that is limited from outside.
- Equal texts and plain numbers are decided without it: that is thousands of times faster, and most answers are numbers.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from typing import Any

from distill_data.reasoning import final_answer
from distill_data.records import Prompt
from distill_data.verify.expected import SOLUTION_MARK, expected_answer
from distill_data.verify.numbers import Quantity, plain_number

MAX_LENGTH = 500  # characters of an expression; a longer one is no final answer and takes seconds to parse
DECIMALS = 6

_MATH = r"(?:\$\$.+?\$\$|\$[^$]+\$|\\\(.+?\\\)|\\\[.+?\\\])"
_JOINED = re.compile(rf"{_MATH}(?:\s*(?:,?\s*(?:and|or)\b|,)\s*{_MATH})*\s*(?:\\?%|percent\b)?", re.DOTALL)
_DELIMITERS = re.compile(r"(?<!\\)\$+|\\[()\[\]]")
_SPACE = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_LOOSE_END = re.compile(r"(?:[.,;:]|\\[ ,;!])+$")
_MARKUP = "*_` \t\r\n"
_NAMED = re.compile(r"([a-zA-Z](?:_\{?\w+\}?)?(?:\([a-z]\))?)\s*=([^=]+)")
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_WORD = re.compile(r"[A-Za-z][A-Za-z ]+")
_PROSE = re.compile(r"(?<![\\a-zA-Z{])[a-zA-Z]{3,}\s+[a-zA-Z]{2,}\s+[a-zA-Z]{2,}")
_BASE = re.compile(r"[0-9)]_\{?([0-9]+)\}?$")


class MathVerifier:
    """Compares values and expressions: fractions, percents, units, sets, intervals, equations, matrices.

    Where only one of answer and reference says percent, 45% is 45 or 0.45. A decimal equals a fraction that it gives
    to six decimals and six digits. Known units must not differ, other words behind a number are ignored. An expression
    that was not worked out (`2 + 3`) is its value; so is the right side of an equation where the reference is none.
    """

    name = "math"
    version = 1

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the final answer is the reference in another writing; 0 otherwise, also where it cannot be read.

        Raises:
            InputError: the prompt has no reference.
        """
        expected = _expression(expected_answer(prompt))
        given = _expression(_final_answer(answer))
        if not given:
            return 0.0
        if _same_text(given, expected):
            return 1.0
        (name, value), (right_name, right) = _number(given), _number(expected)
        if value is not None and right is not None and (name == right_name or not (name and right_name)):
            return float(_same_number(value, right))
        return float(_may_be_compared(given, expected) and _equal(expected, given))


def _final_answer(answer: str) -> str:
    """The final answer, or the last line where it is one of GSM8K's form, `#### 72`."""
    last_line = answer.rstrip().rpartition("\n")[2]
    return last_line.removeprefix(SOLUTION_MARK) if last_line.startswith(SOLUTION_MARK) else final_answer(answer)


def _expression(text: str) -> str:
    """The mathematics of a final answer: what its delimiters hold, where there are some, else all of it.

    What an answer begins with is meant (`$5$, since $x=3$`); of a text that begins otherwise, the last.
    """
    text = text.strip(_MARKUP)
    if len(text) > 2 * MAX_LENGTH:
        text = text.splitlines()[-1]
    if found := list(_JOINED.finditer(text)):
        text = (found[0] if text.startswith(found[0].group()) else found[-1]).group()
    if len(_DELIMITERS.findall(text)) <= 2:  # more hold several values
        text = _DELIMITERS.sub("", text)
    return _LOOSE_END.sub("", text.strip(_MARKUP)).strip(_MARKUP)


def _same_text(given: str, expected: str) -> bool:
    """The same characters but for white space; words also in another case and as LaTeX text."""
    if _SPACE.sub("", given) == _SPACE.sub("", expected):
        return True
    given, expected = (_TEXT.sub(r"\1", text).strip(" .") for text in (given, expected))
    return bool(_WORD.fullmatch(expected)) and given.casefold() == expected.casefold()


def _number(expression: str) -> tuple[str, Quantity | None]:
    """The name before it, or "", and the plain number that an expression is: of `x = 5`, `x` and 5."""
    named = _NAMED.fullmatch(expression)
    return (named[1], plain_number(named[2])) if named else ("", plain_number(expression))


def _same_number(given: Quantity, expected: Quantity) -> bool:
    rounded = given.decimal or expected.decimal
    return given.same_unit(expected) and any(
        value == right or (rounded and _rounds_to(abs(value - right), max(abs(value), abs(right))))
        for value in given.readings(expected)
        for right in expected.readings(given)
    )


def _rounds_to(difference: Any, size: Any) -> bool:
    """Less apart than rounding to six digits and to six decimals explains: 0.333333 is 1/3, 1e-9 is not 2e-9."""
    return difference * 10**DECIMALS <= min(size, 0.5)


def _may_be_compared(given: str, expected: str) -> bool:
    """False for what the library would misread: long texts, prose, and a base that it ignores (`1010_2`)."""
    if not given or max(len(given), len(expected)) > MAX_LENGTH or _PROSE.search(_TEXT.sub("", given)):
        return False
    base, expected_base = _BASE.search(given), _BASE.search(expected)
    return base is None or (expected_base is not None and base[1] == expected_base[1])


def _equal(expected: str, given: str) -> bool:
    math_verify, _ = import_math_verify()
    right, value = _parsed(expected), _parsed(given)
    if not right or not value:
        return False
    options = {"float_rounding": _decimals(right[0]), "allow_set_relation_comp": True, "timeout_seconds": None}
    return math_verify.verify(list(right), list(value), **options)


@lru_cache(maxsize=1024)  # a prompt's samples share its reference
def _parsed(expression: str) -> tuple[Any, ...]:
    """What math-verify reads in an expression: a sympy object and the text; of both none where it can read nothing."""
    math_verify, latex_only = import_math_verify()
    text = f"${_DELIMITERS.sub('', expression)}$" if not _JOINED.fullmatch(expression) else expression
    return tuple(math_verify.parse(text, latex_only, extraction_mode="first_match", parsing_timeout=None))


def _decimals(right: Any) -> int:
    """To how many decimals floats are compared: six digits of a number below 1, else six decimals."""
    from sympy import Abs, Basic, log

    if not isinstance(right, Basic) or not right.is_number or right.is_zero is not False:
        return DECIMALS
    digits = log(Abs(right), 10).evalf(4)
    return DECIMALS + max(0, -int(digits)) if digits.is_Float else DECIMALS


@cache
def import_math_verify() -> tuple[Any, list[Any]]:
    """Load math-verify (a second): it, and the extraction that reads LaTeX only."""
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its time limits are off
    return math_verify, [math_verify.LatexExtractionConfig()]
