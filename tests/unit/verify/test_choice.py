from __future__ import annotations

from typing import Any

import pytest

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.choice import ChoiceVerifier

QUESTION = "Which is the capital of France?\nA. Rome\nB. Paris\nC. London\nD. A town"


def ask(reference: str | None, question: str = QUESTION, **metadata: Any) -> Prompt:
    return Prompt([{"role": "user", "content": question}], "mine", reference, metadata)


@pytest.mark.parametrize(
    "answer",
    [
        "B", "b", "(B)", "(b)", "B.", "B)", "**B**", "**B.**", "B. Paris", "(B) Paris", "Paris", "paris.",
        "\\boxed{B}", "\\boxed{\\text{B}}", "\\boxed{(B)}", "\\boxed{\\textbf{(B) } Paris}", "\\boxed{Paris}",
        "<answer>B</answer>", "The answer is (B)", "The answer is B.", "The answer is **B**.", "The answer is: B",
        "The answer is B because Paris is.", "Answer: B", "**Answer:** B", "**Answer: B**", "Answer: B) Paris",
        "Answer: (B) Paris", "Answer: Option B", "The answer is Paris.", "Option B is correct.",
        "B is the correct answer.", "The correct option is B", "The correct choice is (B).",
        "the best answer is B, since it is", "Therefore, the correct answer is **(B) Paris**.",
        "A is Rome, C is London.\nSo the answer is B.", "The correct answer is option B.",
        "Final answer: $\\boxed{B}$", "Between (A) and (B). The answer is $\\boxed{\\textbf{(B)}}$.",
        "Option A: Rome is in Italy.\nOption B: Paris is in France.\n\nAnswer: B\n",
        "B) Paris.\nIt has been the capital for centuries.",
        "Rome is a capital too. " * 90 + "The answer is (B). " + "It lies on the Seine. " * 90,
    ],
)  # fmt: skip
def test_right(answer: str) -> None:
    assert ChoiceVerifier().score(answer, ask("B")) == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        "", "A", "The answer is A.", "The answer is A or B.", "The answer is (A) and (B).", "The answer is A/B",
        "The answer is A. No, the answer is B.", "\\boxed{A} or \\boxed{B}", "\\boxed{A}. The answer is B.",
        "A town", "The answer is a city", "I think Paris or Rome", "B or C", "A, B", "(A) (B)", "Answer: A, B",
        "The answer is not B.", "Option B is not correct.", "Option B is incorrect.", "The answer is B-flat",
        "The answer is Bordeaux", "The answer is BC", "B is a letter", "Both A and B are correct",
        "Option A is correct. Option B is correct.", "Neither. The answer is D", "B. Paris\nC. London",
        "What is the answer? B would be wrong.", "<answer>A</answer> The answer is B.",
    ],
)  # fmt: skip
def test_wrong_or_undecided(answer: str) -> None:
    assert ChoiceVerifier().score(answer, ask("B")) == 0.0


@pytest.mark.parametrize("reference", ["B", "b", "(B)", "B.", "B. Paris", "Paris", "\\boxed{B}"])
def test_the_reference_is_a_letter_or_a_text(reference: str) -> None:
    assert ChoiceVerifier().score("Answer: B", ask(reference)) == 1.0
    assert ChoiceVerifier().score("Answer: C", ask(reference)) == 0.0


@pytest.mark.parametrize(
    "choices",
    [
        ["12", "17"],
        {"A": "12", "B": "17"},
        {"label": ["A", "B"], "text": ["12", "17"]},
        {"text": [12, 17], "label": "AB"},
    ],
)
def test_choices_in_the_metadata(choices: Any) -> None:
    prompt = ask("17", "How many?", choices=choices)
    assert ChoiceVerifier().score("\\boxed{17}", prompt) == 1.0
    assert ChoiceVerifier().score("The answer is (B)", prompt) == 1.0
    assert ChoiceVerifier().score("\\boxed{12}", prompt) == 0.0


@pytest.mark.parametrize("reference", ["2", "Madrid", "A or B"])
def test_a_reference_that_is_no_choice_is_an_error(reference: str) -> None:
    with pytest.raises(InputError, match=r"names no choice \(of: A, B, C, D\): give the letter"):
        ChoiceVerifier().score("B", ask(reference))


def test_needs_a_reference() -> None:
    with pytest.raises(InputError, match="has no reference: fill"):
        ChoiceVerifier().score("B", ask(None))
