"""The answer matches a pattern."""

from __future__ import annotations

from typing import Literal

import regex

from distill_data.errors import InputError
from distill_data.reasoning import final_answer
from distill_data.records import Prompt

Where = Literal["final", "anywhere"]


class RegexVerifier:
    """One pattern for all prompts, or every prompt's reference as its pattern; in the syntax of the `regex` package.

    A pattern that backtracks without end is stopped after `timeout` seconds.
    """

    name = "regex"
    version = 1

    def __init__(self, pattern: str | None = None, match: Where = "final", timeout: float = 5.0) -> None:
        self._pattern = pattern
        self._match = match
        self._timeout = timeout

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the whole answer or the whole final answer matches, or (`anywhere`) a part of the answer; else 0.

        Raises:
            InputError: no pattern is set and the prompt has no reference, or one that is no pattern; or the match
                took longer than the timeout.
        """
        pattern = self._compiled(prompt)
        try:
            if self._match == "anywhere":
                return float(pattern.search(answer, timeout=self._timeout) is not None)
            candidates = dict.fromkeys([final_answer(answer), answer.strip()])
            return float(any(pattern.fullmatch(text, timeout=self._timeout) for text in candidates))
        except TimeoutError:
            raise InputError(
                f"pattern {pattern.pattern!r} took more than {self._timeout:g} s on one answer: "
                "write it without nested repetitions"
            ) from None

    def _compiled(self, prompt: Prompt) -> regex.Pattern[str]:
        """The pattern for a prompt; the package keeps the last few hundred compiled."""
        source = prompt.reference if self._pattern is None else self._pattern
        if source is None:
            raise InputError(
                f"prompt {prompt.prompt_id} has no reference to match: fill the reference: column, or set judge.pattern"
            )
        try:
            return regex.compile(source)
        except regex.error as error:
            raise InputError(
                f"prompt {prompt.prompt_id} has the reference {source!r}, which is no pattern ({error}): correct it"
            ) from None
