from __future__ import annotations

from pathlib import Path

import pytest

from distill_data.errors import ConfigError
from distill_data.records import Prompt
from distill_data.verify.python import PythonVerifier

PROMPT = Prompt([{"role": "user", "content": "?"}], "mine", "42")
SCORES = """
import numpy as np
def right(answer, prompt): return answer == prompt.reference
def half(answer, prompt): return 0.5
def array(answer, prompt): return np.float32(0.25)
def flag(answer, prompt): return np.bool_(True)
def two(answer, prompt): return 2
def negative(answer, prompt): return -0.1
def nan(answer, prompt): return float("nan")
def text(answer, prompt): return "1"
def nothing(answer, prompt): return None
def fails(answer, prompt): raise KeyError("gone")
number = 1
"""


@pytest.fixture(autouse=True)
def _scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_scores.py").write_text(SCORES, encoding="utf-8")
    (tmp_path / "broken_scores.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "answer", "score"),
    [("right", "42", 1.0), ("right", "43", 0.0), ("half", "", 0.5), ("array", "", 0.25), ("flag", "", 1.0)],
)
def test_score(name: str, answer: str, score: float) -> None:
    found = PythonVerifier(f"own_scores:{name}").score(answer, PROMPT)
    assert (found, type(found)) == (score, float)


@pytest.mark.parametrize("name", ["two", "negative", "nan", "text", "nothing"])
def test_another_result_is_an_error_that_names_the_function(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"own_scores:{name} gave '.*' \(\w+\): let it return a number from 0 to 1"):
        PythonVerifier(f"own_scores:{name}").score("42", PROMPT)


def test_what_the_function_raises_goes_on() -> None:
    with pytest.raises(KeyError, match="gone"):
        PythonVerifier("own_scores:fails").score("42", PROMPT)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "no_such_module:score",
            "importing no_such_module failed .*: install its package, or put its folder on PYTHONPATH",
        ),
        ("broken_scores:score", "importing broken_scores failed .ZeroDivisionError"),
        ("own_scores:missing", "own_scores has no function 'missing': name one"),
        ("own_scores:number", "own_scores has no function 'number': name one"),
    ],
)
def test_a_function_that_cannot_be_had(function: str, message: str) -> None:
    verifier = PythonVerifier(function)
    with pytest.raises(ConfigError, match=message):
        verifier.score("42", PROMPT)
