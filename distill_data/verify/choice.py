"""The letter of a multiple choice that the answer names as its final one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from distill_data.errors import InputError
from distill_data.reasoning import BOXED, final_answer
from distill_data.records import Prompt
from distill_data.verify.expected import expected_answer

METADATA_KEY = "choices"
REACH = 40  # characters

_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_MARKUP = re.compile(r"\\(?:text|textbf|mathrm|mathbf|boxed|rm|bf)(?![a-zA-Z])|[{}$*_`\"“”]|\\[()\[\]]")
_LISTED = re.compile(r"^[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]+(\S[^\n]*)", re.MULTILINE)

_ALONE = re.compile(r"(?:(?:option|choice|letter)\s+)?[(\[]?([A-Za-z])[)\]]?\s*[.:,;!]?", re.IGNORECASE)
_LED = re.compile(
    r"(?:(?:option|choice)\s+)?(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Z])[.):])\s+(\S.*)", re.DOTALL | re.IGNORECASE
)
_LETTER = r"(?:(?:option|choice|letter)\s+)?(?:[(\[][A-Za-z][)\]]|(?-i:[A-Z])(?![\w'’-]))"  # noqa: RUF001
_LETTERS = rf"({_LETTER}(?:\s*(?:,|/|&|\band\b|\bor\b)+\s*{_LETTER})*)"
_ENDS = r"(?=\s*(?:$|\n|[.,:;!?(<)—–-])|\s+(?:because|since|as|which|and|or|but)\b)"  # noqa: RUF001
_IS = r"\s+(?:is|would be|must be|should be)\s*:?"
_NAMED = [
    re.compile(rf"\b(?:answer(?:{_IS}|\s*:)|(?:option|choice){_IS})\s*{_LETTERS}{_ENDS}", re.IGNORECASE),
    re.compile(rf"{_LETTERS}\s+(?:is|are)\s+(?:the\s+)?(?:correct|right)(?![\w-])", re.IGNORECASE),
    re.compile(rf"{_LETTERS}\s+is\s+the\s+(?:best\s+)?(?:answer|option|choice)\b", re.IGNORECASE),
]
_CUE = re.compile(r"answer|option|choice|correct|right", re.IGNORECASE)
_INNER = re.compile(r"[(\[]([A-Za-z])[)\]]|\b([A-Z])\b")


class ChoiceVerifier:
    r"""Reads `(A)`, `A.`, `**A**`, `\boxed{A}`, `the answer is (A)`, `A) Paris`, or the text of a choice alone.

    The choices are the metadata `choices` (a list, a mapping of letters to texts, or `{label: […], text: […]}`), or
    else the lines `A. …` or `(A) …` of the prompt's last message.
    """

    name = "choice"
    version = 1

    def score(self, answer: str, prompt: Prompt) -> float:
        """1 where the answer names one letter as final and it is the reference's; 0 otherwise, also where it names two.

        Raises:
            InputError: the prompt has no reference, or one that is neither a letter nor the text of a choice.
        """
        choices = _choices(prompt)
        return float(_final_letters(answer, choices) == {_expected_letter(prompt, choices)})


def _expected_letter(prompt: Prompt, choices: dict[str, str]) -> str:
    reference = expected_answer(prompt)
    letters = _letters_of(reference, choices)
    if len(letters) != 1:
        listed = ", ".join(choices) or "none"
        raise InputError(
            f"prompt {prompt.prompt_id} has the reference {reference[:80]!r}, which names no choice (of: {listed}): "
            f"give the letter, or list the choices in the prompt or in its metadata {METADATA_KEY!r}"
        )
    return letters.pop()


def _choices(prompt: Prompt) -> dict[str, str]:
    """Letter to text; empty where neither metadata nor prompt lists any."""
    given = prompt.metadata.get(METADATA_KEY)
    if given is None:
        return _listed(prompt.messages[-1]["content"])
    labels, texts = _labels_and_texts(given)
    return {str(label).strip().upper(): str(text) for label, text in zip(labels, texts, strict=True)}


@lru_cache(maxsize=1024)  # a prompt's samples come together
def _listed(question: str) -> dict[str, str]:
    return {bracketed or dotted: text for bracketed, dotted, text in _LISTED.findall(question)}


def _labels_and_texts(given: Any) -> tuple[Iterable[Any], Iterable[Any]]:
    if isinstance(given, dict) and set(given) == {"label", "text"}:
        return given["label"], given["text"]
    if isinstance(given, dict):
        return given.keys(), given.values()
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(given)], given


def _final_letters(answer: str, choices: dict[str, str]) -> set[str]:
    """Every letter that the answer names as final: in a tag, in a box or in a phrase; else all of it is one."""
    named = {
        letter
        for content in [*_TAGGED.findall(answer), *(_BOXED.findall(answer) if BOXED in answer else [])]
        for letter in _letters_of(content, choices)
    }
    for around in _around_cues(answer):
        for letters in (letters for phrase in _NAMED for letters in phrase.findall(around)):
            named |= {(bracketed or bare).upper() for bracketed, bare in _INNER.findall(letters)}
    whole = (_letters_of(text, choices) for text in dict.fromkeys([final_answer(answer), answer.strip()]))
    return named or next((letters for letters in whole if letters), set())


def _around_cues(answer: str) -> Iterator[str]:
    """What stands around each word that may name a letter, cut between words and without markup.

    Only there are phrases looked for: to look through a whole answer takes ten times as long.
    """
    for cue in _CUE.finditer(answer):
        line = answer.rfind("\n", 0, cue.start())
        start = max(line, answer.rfind(" ", 0, max(0, cue.start() - REACH))) + 1
        end = answer.find(" ", cue.end() + REACH)
        yield _MARKUP.sub("", answer[start : end if end >= 0 else len(answer)])


def _letters_of(text: str, choices: dict[str, str]) -> set[str]:
    """The letter that a whole text is, begins with as a label, or whose choice it is; two where it lists two."""
    text = _MARKUP.sub("", text).strip()
    if alone := _ALONE.fullmatch(text):
        return {alone[1].upper()}
    bare = _same_text(text)
    if of_text := {letter for letter, choice in choices.items() if _same_text(choice) == bare}:
        return of_text
    if led := _LED.fullmatch(text):
        return {(led[1] or led[2]).upper()} | {bracketed or dotted for bracketed, dotted, _ in _LISTED.findall(led[3])}
    return set()


def _same_text(text: str) -> str:
    """A text as choices are compared: without markup, case, outer punctuation and repeated white space."""
    return " ".join(_MARKUP.sub("", text).casefold().split()).strip(" .")
