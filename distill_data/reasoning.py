"""Tell the thinking from the answer in a completion, and find the short final answer in an answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from distill_data.teacher_config import Reasoning

BOXED = "\\boxed{"
ANSWER_PHRASE = re.compile(
    r"(?<![a-z])answer[*_`]*(?:[ \t]*[:：]|[ \t]+is\b[ \t]*:?)[ \t]*(\S[^\n]*)",  # noqa: RUF001 (full-width colon)
    re.IGNORECASE,
)
MARKUP = "*_` \t\r"


@dataclass(frozen=True)
class Split:
    """A completion in two.

    `thinking` is None where the completion marks none; `finished` is False where a thought was opened and
    never closed, and then the answer is empty.
    """

    thinking: str | None
    answer: str
    finished: bool


# Splits a completion, given the last characters of its rendered prompt: an opening tag may sit there.
Splitter = Callable[[str, str], Split]


def split_completion(completion: str, prompt_suffix: str, reasoning: Reasoning) -> Split:
    """Split a completion at the thinking tags, or at the answer pattern where there are no tags.

    The open tag may begin the completion or end `prompt_suffix` (a chat template that opens the thought
    itself). A close tag alone closes a thought that was opened out of sight. Only outer white space is
    stripped, of both sides. An empty tag in the config is a tag that never comes.
    """
    open_tag, close_tag = reasoning.open_tag, reasoning.close_tag
    text = completion.lstrip()
    opened = bool(open_tag) and text.startswith(open_tag)
    opened_by_template = bool(open_tag) and prompt_suffix.rstrip().endswith(open_tag)
    body = text.removeprefix(open_tag) if opened else completion
    if close_tag and close_tag in body:
        thinking, _, answer = body.partition(close_tag)
        return Split(thinking.strip(), answer.strip(), True)
    if opened or opened_by_template:
        return Split(body.strip(), "", False)
    if reasoning.answer_pattern is None:
        return Split(None, completion.strip(), True)
    return _split_at_pattern(completion, reasoning.answer_pattern)


def final_answer(text: str) -> str:
    r"""The short final answer inside an answer, for verifiers that compare values.

    The first of these that is there: the last `<answer>…</answer>`; the last `\boxed{…}`; what follows the
    last `answer: …` or `answer is …` on its line, without surrounding markup and a trailing period; what
    follows the last `=` of the last line; the whole text. The tags and `\boxed` are what reasoning teachers
    are commonly told to write.
    """
    before, tag, _ = text.rpartition("</answer>")
    if tag and "<answer>" in before:
        return before.rpartition("<answer>")[2].strip()
    if (boxed := _last_boxed(text)) is not None:
        return boxed.strip()
    if "answer" in text.casefold() and (phrases := ANSWER_PHRASE.findall(text)):  # most have none: quicker so
        return _bare(phrases[-1])
    lines = text.strip().splitlines()
    if lines and "=" in lines[-1]:
        return _bare(lines[-1].rpartition("=")[2])
    return text.strip()


def _split_at_pattern(completion: str, pattern: str) -> Split:
    """The last match of the pattern (its first group, where it has one) is the answer."""
    matches = list(re.finditer(pattern, completion))
    if not matches:
        return Split(completion.strip(), "", True)
    found = matches[-1]
    group = 1 if found.re.groups else 0
    if found.group(group) is None:  # the group is optional and did not take part
        return Split(completion.strip(), "", True)
    return Split(completion[: found.start(group)].strip(), found.group(group).strip(), True)


def _last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces balance; None where there is none."""
    stop = len(text)
    while (start := text.rfind(BOXED, 0, stop)) >= 0:
        depth = 1
        for end in range(start + len(BOXED), stop):
            depth += (text[end] == "{") - (text[end] == "}")
            if depth == 0:
                return text[start + len(BOXED) : end]
        stop = start  # an earlier one that held this one could not be closed either
    return None


def _bare(text: str) -> str:
    """A value without markup around it and without the period that ends its sentence."""
    return text.strip(MARKUP).removesuffix(".").strip(MARKUP)
