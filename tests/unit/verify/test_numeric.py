from __future__ import annotations

import pytest

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.numeric import NumericVerifier


def ask(reference: str | None) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("42", "42"), ("The sum is 42.", "42"), ("is **42**.", "42"), ("is *42*", "42"), ("\\boxed{42}", "42"),
        ("Answer: $42$", "42.0"), ("6 * 7 = 42", "42"), ("We had 3, then 42 apples in total.", "42"),
        ("-42", "-42"), ("\u221242", "-42"), ("\u201342", "-42"), ("x = - 42", "-42"), ("+42", "42"), ("001", "1"),
      
        ("1,234.50", "1234.5"), ("1{,}234", "1234"), ("1\\,234", "1234"), ("1\u202f234\u00a0567", "1234567"),
        ("$1,234", "1234"), ("\\$18.00", "18"), ("-$5", "-5"), ("$-5$", "-5"), ("£3.50", "3.5"), ("3 €", "3"),
        ("50%", "50"), ("50%", "0.5"), ("50\\%", "50%"), ("0.5", "50%"), ("12.5 percent", "0.125"),
        ("3/4", "0.75"), ("\\frac{3}{4}", "0.75"), ("-\\dfrac{3}{4}", "-0.75"), ("2 1/2", "2.5"), ("2½", "2.5"),
        ("2\\frac{1}{2}", "2.5"), ("1/3", "0.3333333"), ("6.02e23", "6.02 \u00d7 10²³"), ("3\\times 10^{-4}", "0.0003"),
        ("5 million", "5000000"), ("25 m²", "25"), ("5 m^2", "5"), ("90^\\circ", "90"), ("5km", "5"), (".5", "0.5"),
        ("5 km", "5 kilometers"), ("It takes 5 minutes.", "5 min"), ("5 apples", "5 m"), ("5", "5 m"),
        ("42", "She buys 6 * 7 = 42.\n#### 42"), ("1,000", "\\boxed{1000}"),
    ],
)  # fmt: skip
def test_right(answer: str, reference: str) -> None:
    assert NumericVerifier().score(answer, ask(reference)) == 1.0


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("", "42"), ("no idea", "42"), ("421", "42"), ("42 or 43", "42"), ("-42", "42"), ("= - 5", "5"), ("= -5", "5"),
        ("12 - 5", "5"), ("3-5", "5"), ("2π", "2"), ("2\\pi", "2"), ("√2", "2"), ("\\sqrt{2}", "2"), ("5x", "5"),
        ("4 + x", "4"), ("x^2", "2"), ("±3", "3"), ("\\pm 3", "3"), ("H2O", "2"), ("GPT-4", "4"), ("10^5", "5"),
        ("10^5", "10"), ("3,14", "14"), ("1,2,3", "3"), ("1.2.3", "1.2"), ("12:30", "30"), ("2024-05-03", "3"),
        ("1/2/2024", "2024"), ("1 234 567", "567"), ("1/0", "0"), ("5 million", "5"), ("0.5%", "50%"),
        ("3\u00d75", "5"),
        ("1e999999999", "1"), ("9" * 400, "9"), ("7" * 90, "7" * 80), ("1000001", "1000000"), ("0.333", "1/3"),
        ("7006653", "7006652"), ("0.0000001", "0.0000002"),
        ("5 cm", "5 m"), ("The answer is 5 kg.", "5 g"), ("\\boxed{5\\text{ cm}}", "5 mm"), ("25 m²", "25 m"),
    ],
)  # fmt: skip
def test_wrong(answer: str, reference: str) -> None:
    assert NumericVerifier().score(answer, ask(reference)) == 0.0


@pytest.mark.parametrize(
    ("relative", "absolute", "answer", "score"),
    [
        (0.0, 0.0, "100.0001", 0.0), (0.05, 0.0, "104", 1.0), (0.05, 0.0, "106", 0.0), (0.0, 2.0, "98", 1.0),
        (0.0, 2.0, "97.9", 0.0), (1e-6, 0.0, "100.00005", 1.0), (1e-6, 0.0, "100.0002", 0.0),
    ],
)  # fmt: skip
def test_tolerances(relative: float, absolute: float, answer: str, score: float) -> None:
    assert NumericVerifier(relative, absolute).score(answer, ask("100")) == score


def test_whole_numbers_have_the_relative_tolerance_that_is_asked_for() -> None:
    assert NumericVerifier(1e-3).score("83100000", ask("83091000")) == 1.0


@pytest.mark.parametrize("reference", ["blue", "2π", "x^2", "1/0"])
def test_a_reference_that_is_no_number_is_an_error(reference: str) -> None:
    with pytest.raises(InputError, match="which is no number: fill the reference"):
        NumericVerifier().score("42", ask(reference))


@pytest.mark.parametrize("reference", [None, "", "  ", "#### "])
def test_needs_a_reference(reference: str | None) -> None:
    with pytest.raises(InputError, match="has no reference: fill"):
        NumericVerifier().score("42", ask(reference))
