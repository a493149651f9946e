from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import get_args

import pytest

from distill_data.errors import InputError
from distill_data.judge_config import ExactJudge, ReasoningGymJudge, Rule
from distill_data.prompt_config import ReasoningGymPrompts
from distill_data.prompts import load_prompts
from distill_data.records import Prompt, table_to_prompts
from distill_data.section import tag_of
from distill_data.verify import make_verifier, verifier_identity


def ask(reference: str | None) -> Prompt:
    return Prompt([{"role": "user", "content": "?"}], "mine", reference)


def stored(task: str, size: int = 3, **options: int) -> list[Prompt]:
    source = ReasoningGymPrompts(source="reasoning_gym", task=task, size=size, seed=3, options=options)
    return table_to_prompts(load_prompts([source]).table)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        ("42", "42", 1.0),
        (" 42\n", "42 ", 1.0),
        ("The sum is 42.\nAnswer: **42**.", "42", 1.0),
        ("so \\boxed{北京}", "北京", 1.0),
        ("Answer: 421", "42", 0.0),
        ("42 or 43", "42", 0.0),
        ("Yes", "yes", 0.0),
        ("", "42", 0.0),
    ],
)
def test_exact(answer: str, reference: str, score: float) -> None:
    assert make_verifier(ExactJudge(verifier="exact")).score(answer, ask(reference)) == score


def test_exact_needs_a_reference() -> None:
    with pytest.raises(InputError, match="has no reference"):
        make_verifier(ExactJudge(verifier="exact")).score("42", ask(None))


def test_reasoning_gym_scores_stored_prompts_with_the_tasks_scorer() -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    prompt = stored("chain_sum")[0]
    right = prompt.reference or ""
    assert verifier.score(right, prompt) == 1.0
    assert verifier.score(f"First this, then that.\nAnswer: {right}.", prompt) == 1.0
    assert verifier.score(f"it = {right}", prompt) == 1.0
    assert 0.0 < verifier.score(f"{right} or so", prompt) < 1.0  # the scorer's own part score
    assert verifier.score("no idea", prompt) == 0.0


@pytest.mark.parametrize("task", ["countdown", "word_ladder", "sudoku", "polynomial_equations", "knights_knaves"])
def test_other_tasks_pass_their_own_answers(task: str) -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    for prompt in stored(task, 2):
        assert verifier.score(prompt.reference or "", prompt) == 1.0


def test_scorer_is_built_with_the_options_that_it_reads() -> None:
    prompts = stored("decimal_arithmetic", 2, min_num_decimal_places=9, max_num_decimal_places=9)
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    prompt = prompts[0]
    off = f"{float(prompt.reference or 0) + 3e-5:.9f}"
    wide = Prompt(prompt.messages, prompt.source, prompt.reference, prompt.metadata | {"options": {}})
    assert verifier.score(off, prompt) < 1.0
    assert verifier.score(prompt.reference or "", wide) == 1.0
    assert len(verifier._tasks) == 2  # type: ignore[attr-defined]


def test_a_prompt_of_another_source_is_compared_as_exact_does() -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    assert verifier.score("so the answer is 7.", ask("7")) == 1.0
    assert verifier.score("8", ask("7")) == 0.0


def test_the_identity_names_what_scores() -> None:
    package = version("reasoning-gym")
    assert verifier_identity(ExactJudge(verifier="exact")) == {"verifier": "exact", "version": 1}
    assert verifier_identity(ReasoningGymJudge(verifier="reasoning_gym")) == {
        "verifier": "reasoning_gym",
        "version": 2,
        "reasoning-gym": package,
    }


EVALUATING = [
    "n_queens", "puzzle24", "countdown", "simple_integration", "intermediate_integration", "polynomial_multiplication",
    "binary_matrix", "spiral_matrix", "string_insertion", "number_sorting",
]  # fmt: skip
HOSTILE = "__import__('pathlib').Path({!r}).write_text('was here')"


@pytest.mark.parametrize("task", EVALUATING)
def test_scorers_that_evaluate_pass_their_own_answers(task: str) -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    for prompt in stored(task):
        assert verifier.score(prompt.reference or "", prompt) == 1.0


@pytest.mark.parametrize("task", EVALUATING)
def test_no_scorer_runs_what_the_teacher_says(task: str, tmp_path: Path) -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    mark = tmp_path / "mark"
    for answer in (HOSTILE.format(str(mark)), "[" + HOSTILE.format(str(mark)) + "]", "9**9**9**9"):
        assert verifier.score(answer, stored(task, 1)[0]) == 0.0
    assert not mark.exists()


def test_a_scorer_that_evaluates_still_scores_formulas_of_another_form() -> None:
    verifier = make_verifier(ReasoningGymJudge(verifier="reasoning_gym"))
    prompt = stored("polynomial_multiplication", 1)[0]
    assert verifier.score(f"0 + {prompt.reference}", prompt) == 1.0
    assert verifier.score(f"1 + {prompt.reference}", prompt) == 0.0


MADE = {
    "exact": {}, "reasoning_gym": {}, "math": {}, "choice": {}, "numeric": {}, "regex": {"pattern": "4."},
    "json_schema": {"json_schema": {"type": "integer"}}, "python": {"function": "math:isqrt"}, "code": {},
}  # fmt: skip


def test_every_verifier_of_the_config_is_made_under_its_own_name() -> None:
    kinds = get_args(Rule)
    assert {tag_of(kind) for kind in kinds} == MADE.keys()
    for kind in kinds:
        name = str(tag_of(kind))
        made = make_verifier(kind(verifier=name, **MADE[name]))
        assert made.name == name and made.version >= 1
