"""The section `filters`: which traces are dropped by what they say, how long they are and how sure the teacher was."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from distill_data.section import Section

_OFF = Field(exclude_if=lambda value: value is None or value is False)  # what is off is no part of a digest
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(ge=1.0)]
LogProbability = Annotated[float, Field(le=0.0)]


def _one_or_many(codes: Any) -> Any:
    return [codes] if isinstance(codes, str) else codes


def _are_codes(codes: list[str] | None) -> list[str] | None:
    if codes is None:
        return None
    if not codes:
        raise ValueError("is empty: give codes of ISO 639-1 such as en, or leave language: out")
    if wrong := [code for code in codes if not re.fullmatch("[a-z]{2}", code)]:
        raise ValueError(f"{wrong[0]!r} is no code of ISO 639-1: use two small letters, such as en or zh")
    return sorted(set(codes))  # their order means nothing


class Filters(Section):
    """Reasons to drop a trace whatever the judge said; dropped rows stay readable in `rejected/`."""

    truncated: bool = True
    """Drop traces cut by `max_tokens` or by the context."""
    unfinished_thinking: bool = True
    """Drop traces that opened a thought and never closed it."""
    missing_answer: bool = True
    """Drop traces whose answer is empty."""
    min_tokens: Annotated[PositiveInt | None, _OFF] = None
    """Drop completions of fewer tokens than this, thinking and EOS included; 16 finds empty phrases."""
    max_tokens: Annotated[PositiveInt | None, _OFF] = None
    """Drop completions of more tokens than this, such as the student's context."""
    max_paragraph_characters: Annotated[PositiveInt | None, _OFF] = None
    """Drop completions with a paragraph of more characters than this; blank lines part paragraphs. 6000 is far above
    what people and teachers write, code without a blank line included."""
    max_repetition: Annotated[Share | None, _OFF] = None
    """Drop completions of whose runs of 10 words a larger share (0 to 1) came earlier in the same completion. 0.3 finds
    loops and leaves refrains, tables and repeated formulas."""
    max_compression: Annotated[Ratio | None, _OFF] = None
    """Drop completions that LZ4 makes smaller by more than this factor (bytes by compressed bytes). Prose is at 1.2 to
    2, tables and code at 2 to 4, loops far above: 6 also finds those that have no words."""
    max_other_script_share: Annotated[Share | None, _OFF] = None
    """Drop completions of whose words a larger share (0 to 1) is not in the script that most of them are in; a
    character of Chinese or Japanese is a word, formulas, code, links and single letters are none. 0.2 leaves English
    terms in Chinese text; 0.02 suits a corpus of English alone."""
    language: Annotated[list[str] | None, BeforeValidator(_one_or_many), AfterValidator(_are_codes), _OFF] = None
    """Languages that are expected, as codes of ISO 639-1 such as `en`: drop completions that are more likely in
    another one. Needs the package `lingua-language-detector`; some hundred traces a second and core."""
    max_code_share: Annotated[Share | None, _OFF] = None
    """Drop completions of which a larger share (0 to 1, of the bytes) stands in fences or in lines that look like code,
    where the prompt's last message does not ask for any. 0.1 leaves a line or two."""
    refusals: Annotated[bool, _OFF] = False
    """Drop traces whose answer begins as a refusal, in English or Chinese."""
    leakage: Annotated[bool, _OFF] = False
    """Drop completions with parts of a chat template or tool call in their text: `<|im_start|>`, `[INST]`,
    `<tool_call>`, a `Human:` turn."""
    personal_data: Annotated[bool, _OFF] = False
    """Drop completions with an e-mail address, telephone number, IBAN, card number or public IP address. Check sums
    are checked; a number that only looks like one goes too."""
    min_mean_logprob: Annotated[LogProbability | None, _OFF] = None
    """Drop completions whose tokens' mean log-probability (nats) is below this; sampled at temperature 1, -1 is
    unusually unsure."""
    min_logprob: Annotated[LogProbability | None, _OFF] = None
    """Drop completions with a sampled token of a log-probability (nats) below this; -12 is one token in 160,000."""
    max_mean_entropy: Annotated[PositiveFloat | None, _OFF] = None
    """Drop completions whose mean entropy (nats a token, what is outside the support counted as one more token) is
    above this; 1 is unusually unsure. Needs `teacher.soft_labels.kind: support`."""

    @model_validator(mode="after")
    def _some_length_is_kept(self) -> Filters:
        if self.min_tokens is not None and self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise ValueError(
                f"min_tokens is {self.min_tokens} and max_tokens {self.max_tokens}, which keeps nothing: make the "
                "first the smaller one"
            )
        return self
