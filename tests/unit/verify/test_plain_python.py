from __future__ import annotations

import pytest

from distill_data.verify.plain_python import is_formula, is_literal


@pytest.mark.parametrize(
    "text",
    [
        "1", " -3.5 ", "(55 - 5) * 2 / 7", "x**2/2 + C", "2*sin(x) + exp(-x)", "(x + 1)**3*(x - 2)", "x**(1/2)",
        "2**10", "x**1000",
    ],
)  # fmt: skip
def test_formulas(text: str) -> None:
    assert is_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "the answer is 4", "x = 4", "x.real", "x[0]", "'a'", "f(x)", "sin(x, y)", "sin(*x)", "lambda: 1",
        "open('a')", "__import__", "_x", "[1, 2]", "1 if x else 2", "x and y", "x < 1", "True", "1j", "~1",
        "9**9**9**9",
        "(2 + x - x)**(10**9)", "((2**999)**999)**999", "2**(999*999*999*(1 + x - x))", "1" * 3000,
        "(" * 500 + "1" + ")" * 500, "-" * 1990 + "1", "x\0", "9e999**9",
    ],
)  # fmt: skip
def test_anything_else_is_no_formula(text: str) -> None:
    assert not is_formula(text)


@pytest.mark.parametrize(
    "text", ["[[1, 0], [0, 1]]", '["Q", "_"]', " 12", "'a'", "0 1 1\n1 0 2", "so it is 4", "x =", ""]
)
def test_literals_and_texts_that_are_no_python(text: str) -> None:
    assert is_literal(text)


@pytest.mark.parametrize("text", ["f()", "[f()]", "x", "x.y", "[x for x in y]", "2**9", "f'{x}'", "1" * 3000])
def test_python_that_is_no_literal(text: str) -> None:
    assert not is_literal(text)
