"""The answer is the reference, or the final answer found in it is."""

from __future__ import annotations

from distill_data.errors import InputError
from distill_data.reasoning import final_answer
from distill_data.records import Prompt


class ExactVerifier:
    """Compares text; only outer white space is forgiven."""

    name = "exact"
    version = 1

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the answer, or its final answer, equals the reference; else 0.

        Raises:
            InputError: the prompt has no reference.
        """
        if prompt.reference is None:
            raise InputError(f"prompt {prompt.prompt_id} has no reference: fill the reference: column")
        reference = prompt.reference.strip()
        return float(answer.strip() == reference or final_answer(answer) == reference)
