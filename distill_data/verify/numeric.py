"""The last number of the final answer is the reference's, within a tolerance."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from distill_data.errors import InputError
from distill_data.reasoning import final_answer
from distill_data.records import Prompt
from distill_data.verify.expected import expected_answer
from distill_data.verify.numbers import Quantity, last_number

ROUNDING = 1e-6
"""The relative tolerance that only forgives rounding; whole numbers are not rounded."""
_ROUNDING = Fraction(ROUNDING)


class NumericVerifier:
    r"""Compares values: `1,234.50`, `3/4`, `75%`, `$18`, `6e3` and `6 \times 10^3` are read, words around are not.

    Where only one of answer and reference says percent, 45% is 45 or 0.45. Two numbers with known units that are not
    the same one differ.
    """

    name = "numeric"
    version = 2

    def __init__(self, relative_tolerance: float = ROUNDING, absolute_tolerance: float = 0.0) -> None:
        self._relative = Fraction(relative_tolerance)
        self._absolute = Fraction(absolute_tolerance)

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the numbers are the same, or as close as one of the tolerances allows; else 0.

        A number that is a part of an expression or a range (`2π`, `12 - 5`) is no answer.

        Raises:
            InputError: the prompt has no reference, or none with a number.
        """
        reference = expected_answer(prompt)
        expected = _expected_number(reference)
        if expected is None:
            raise InputError(
                f"prompt {prompt.prompt_id} has the reference {reference[:80]!r}, which is no number: "
                "fill the reference: column with numbers, or choose verifier: math"
            )
        given = last_number(final_answer(answer))
        return float(given is not None and self._close(given, expected))

    def _close(self, given: Quantity, expected: Quantity) -> bool:
        if given == expected:
            return True
        if not given.same_unit(expected):
            return False
        exact = given.whole and expected.whole and self._relative <= _ROUNDING
        relative = Fraction(0) if exact else self._relative
        return any(
            self._near(value, right, relative)
            for value in given.readings(expected)
            for right in expected.readings(given)
        )

    def _near(self, value: Fraction, right: Fraction, relative: Fraction) -> bool:
        within = max(self._absolute, relative * max(abs(value), abs(right))) if relative else self._absolute
        return abs(value - right) <= within


@lru_cache(maxsize=1024)  # a prompt's samples come together
def _expected_number(reference: str) -> Quantity | None:
    return last_number(reference)
