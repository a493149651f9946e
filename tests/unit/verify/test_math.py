from __future__ import annotations

import threading
from typing import Any

import pytest
import sympy.parsing.sympy_parser as sympy_parser

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.math import MathVerifier

VERIFIER = MathVerifier()


def ask(reference: str | None) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"), ("so we get $x = \\frac{1}{2}$.", "\\frac{1}{2}"),
        ("\\boxed{0.5}", "\\frac12"), ("0.333333", "1/3"), ("50\\%", "50"), ("50%", "0.5"), ("3/2", "1.5"),
        ("2\\frac{1}{2}", "2.5"), ("\\boxed{1,000}", "1000"), ("\\boxed{−1}", "-1"), ("\\$12", "12"),  # noqa: RUF001
        ("**Answer: $12**", "12"), ("The answer is $5$ because $x=3$", "5"), ("\\(x = 3\\).", "3"),
        ("We find\n$$x = 3$$", "3"), ("work\n#### 72", "more work\n#### 72"), ("$2^2 = 4$", "4"), ("12 + 0", "12"),
        ("\\boxed{5 cm}", "5\\text{ cm}"), ("\\boxed{5\\text{ centimeters}}", "5 cm"),
        ("\\boxed{12\\text{ apples}}", "12"),
        ("\\boxed{12 \\text{ square cm}}", "12\\text{ cm}^2"), ("\\boxed{90}", "90^\\circ"),
        ("\\boxed{(x+1)^2}", "x^2+2x+1"), ("\\boxed{y = 2x + 1}", "y=2x+1"), ("2x", "y=2x"),
        ("\\sqrt{12}", "2\\sqrt{3}"),
        ("\\boxed{\\dfrac{\\sqrt{3}}{2}}", "\\frac{\\sqrt3}{2}"), ("3.14159265", "\\pi"), ("3i+2", "2+3i"),
        ("\\boxed{1\\times 10^{-7}}", "10^{-7}"), ("\\boxed{1010_{2}}", "1010_2"), ("\\boxed{1010}", "1010_2"),
        ("\\boxed{(1, 2)}", "(1,2)"), ("\\boxed{\\{2,1\\}}", "\\{1,2\\}"), ("The answer is $1$ and $2$.", "1,2"),
        ("The answer is $x=1$ or $x=2$.", "x=1,x=2"), ("\\boxed{[0, 1)}", "[0,1)"), ("(3,\\infty)", "x>3"),
        ("x>3", "(3,\\infty)"),
        ("(3,\\infty)\\cup(-\\infty,2)", "(-\\infty,2)\\cup(3,\\infty)"), ("Answer: tuesday.", "\\text{Tuesday}"),
        ("\\boxed{\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("The final answer is: $\\boxed{\\frac{1}{2}}$. I hope it is correct.", "\\frac{1}{2}"),
        ("\\boxed{B}", "B"),
        ("\\boxed{x + y = 5}", "5"), ("x = 5", "x=5"), ("words " * 400 + "\nThe answer is $7$.", "7"),
    ],
)  # fmt: skip
def test_right(answer: str, reference: str) -> None:
    assert VERIFIER.score(answer, ask(reference)) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "5"), ("\\boxed{}", "5"), ("I do not know how to solve this problem, sorry.", "5"), ("-5", "5"),
        ("= - 5", "5"),
        ("The answer is $5$ because $x=3$", "3"), ("\\boxed{3,5}", "5"), ("3 or 5", "5"),
        ("\\boxed{5 \\text{ or } 3}", "5"),
        ("\\boxed{5x}", "5"), ("\\boxed{2x = 5}", "25"), ("2\\pi", "2"),
        ("\\boxed{y = 5}", "x = 5"), ("5 million", "5"),
        ("\\boxed{5\\text{ cm}}", "5 m"), ("\\boxed{5\\text{ m}}", "5\\text{ m}^2"), ("5 km", "5 kg"),
        ("1000000", "1000001"), ("1234567.4", "1234567.5"), ("2e-9", "1e-9"), ("0.0000002", "10^{-7}"),
        ("0.33333", "1/3"), ("\\frac{1}{3}", "0.33"), ("1.41", "\\sqrt{2}"), ("0.5%", "50%"),
        ("\\boxed{1010_3}", "1010_2"), ("\\boxed{11_2}", "11"), ("1 2", "12"), ("31/2", "3 1/2"), ("12", "1 2"),
        ("x^2", "x^3"), ("y+1", "x+1"), ("\\{1\\}", "\\{1,2\\}"), ("[1,2]", "(1,2)"), ("(2,1)", "(1,2)"),
        ("(3,1)", "(2,1)"),
        ("\\emptyset", "0"), ("\\emptyset", "(5,2)"), ("\\frac{1}{0}", "5"), ("odd", "even"), ("\\text{west}", "east"),
        ("\\text{no solution}", "\\text{no}"), ("\\boxed{" + "(" * 300 + "1" + ")" * 300 + "}", "2"),
        ("7" * 700, "8" * 700),
        ("\\boxed{\\begin{pmatrix}1\\\\3\\end{pmatrix}}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\\frac{", "\\frac{1}{2}"),
    ],
)  # fmt: skip
def test_wrong(answer: str, reference: str) -> None:
    assert VERIFIER.score(answer, ask(reference)) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        "print(1)", "$f(print(1), 2)$", "$\\gcd(print(1), 18)$", "$x.__class__$",
        "\\boxed{__import__('os').system('true')}",
        "$\\operatorname{print}(3)$", "$\\log_{exec(3)} 5$", "$f(\\text{exit()})$", "\\boxed{9*(8).bit_length()}",
        "(1).__class__.__mro__ + 2", "\\boxed{\\mathrm{exit()}}", "$x_{exit()}$", "$\\frac{d}{d exit()} x$",
    ],
)  # fmt: skip
def test_sympy_evaluates_nothing_of_an_answer_but_numbers(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[str] = []
    evaluate = sympy_parser.eval_expr

    def record(code: str, *arguments: Any) -> Any:
        evaluated.append(code.replace(" ", ""))
        return evaluate(code, *arguments)

    monkeypatch.setattr(sympy_parser, "eval_expr", record)
    assert VERIFIER.score(answer, ask("x+12345")) == 0.0
    names = {code.partition("(")[0] for code in evaluated}
    assert names <= {"Integer", "Float"}
    assert all(code.count("(") == 1 for code in evaluated)


def test_it_works_in_another_thread() -> None:
    scores: list[float] = []
    thread = threading.Thread(target=lambda: scores.append(VERIFIER.score("\\boxed{(x+2)^2}", ask("x^2+4x+4"))))
    thread.start()
    thread.join()
    assert scores == [1.0]


@pytest.mark.parametrize("reference", [None, "", "  "])
def test_needs_a_reference(reference: str | None) -> None:
    with pytest.raises(InputError, match="has no reference: fill"):
        VERIFIER.score("42", ask(reference))
