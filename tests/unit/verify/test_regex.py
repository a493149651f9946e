from __future__ import annotations

import pytest

from distill_data.errors import InputError
from distill_data.records import Prompt
from distill_data.verify.regex import RegexVerifier, Where


def ask(reference: str | None = None) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", reference)


@pytest.mark.parametrize(
    ("pattern", "match", "answer", "score"),
    [
        ("[0-9]+", "final", "The answer is 42.", 1.0), ("[0-9]+", "final", "42", 1.0), ("4", "final", "42", 0.0),
        ("[0-9]+", "final", "The answer is 42 or 43.", 0.0), ("(?i)yes|yep", "final", "Answer: Yes", 1.0),
        ("The answer is \\w+\\.", "final", "The answer is x.", 1.0), ("4", "anywhere", "42", 1.0),
        ("<answer>.+</answer>", "anywhere", "so <answer>x</answer>", 1.0),
        ("<answer>.+</answer>", "anywhere", "so <answer></answer>", 0.0), ("^42$", "anywhere", "is 42", 0.0),
        ("", "final", "", 1.0),
    ],
)  # fmt: skip
def test_pattern(pattern: str, match: Where, answer: str, score: float) -> None:
    assert RegexVerifier(pattern, match).score(answer, ask("ignored")) == score


def test_the_reference_is_the_pattern() -> None:
    assert RegexVerifier().score("Answer: colour", ask("colou?r")) == 1.0
    assert RegexVerifier().score("Answer: colours", ask("colou?r")) == 0.0


def test_no_pattern_at_all() -> None:
    with pytest.raises(InputError, match=r"no reference to match: fill the reference: column, or set judge\.pattern"):
        RegexVerifier().score("42", ask())


def test_a_reference_that_is_no_pattern() -> None:
    with pytest.raises(InputError, match=r"'\(a', which is no pattern .*: correct it"):
        RegexVerifier().score("a", ask("(a"))


def test_endless_backtracking_is_stopped() -> None:
    with pytest.raises(InputError, match=r"took more than 0\.1 s on one answer: write it without nested"):
        RegexVerifier("(a|aa)+$", "anywhere", timeout=0.1).score("a" * 60 + "b", ask())
