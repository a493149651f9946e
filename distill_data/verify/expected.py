"""The right answer that a prompt's reference holds."""

from __future__ import annotations

from distill_data.errors import InputError
from distill_data.reasoning import final_answer
from distill_data.records import Prompt

SOLUTION_MARK = "####"


def expected_answer(prompt: Prompt) -> str:
    r"""The reference, or the final answer in it where it is a worked solution.

    Data sets give the solution in place of the answer: GSM8K ends it with `#### 72`, MATH with `\boxed{72}`.

    Raises:
        InputError: the prompt has no reference, or an empty one.
    """
    reference = (prompt.reference or "").strip()
    if SOLUTION_MARK in reference:
        reference = reference.rpartition(SOLUTION_MARK)[2].strip()
    elif "\\boxed{" in reference:
        reference = final_answer(reference)
    if not reference:
        raise InputError(f"prompt {prompt.prompt_id} has no reference: fill the reference: column")
    return reference
