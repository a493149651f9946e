"""The labels that a teacher in mode `classify` chooses among, as the config gives them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

TEXT_FIELD = "{text}"  # of `teacher.template`


def _by_name(labels: Any) -> Any:
    """A list of labels is said as it is named; one that is there twice is found below."""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return labels
    if twice := [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
        raise ValueError(f"{twice[0]!r} is there twice: leave one of them out")
    return {label: label for label in labels}


def _can_be_told_apart(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) == 1:
        raise ValueError(f"{next(iter(labels))!r} is the only label: give two or more to choose among")
    if empty := [name for name, words in labels.items() if not name.strip() or not words.strip()]:
        raise ValueError(f"{empty[0]!r} has no name or no words: give each label both")
    by_words: dict[str, str] = {}
    for name, words in labels.items():
        if (other := by_words.setdefault(words, name)) != name:
            raise ValueError(f"{other!r} and {name!r} have the same words {words!r}: give each label its own")
    return labels


Labels = Annotated[dict[str, str], BeforeValidator(_by_name), AfterValidator(_can_be_told_apart)]
"""By name of a label, the words that the teacher would say for it."""
