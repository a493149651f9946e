"""Prompts to token ids: the chat template or the plain text, once, the way the teacher will see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill_data import teacher_config
from distill_data.labels_config import TEXT_FIELD
from distill_data.records import Message, Prompt
from distill_data.teachers.label_tokens import label_token_ids

SUFFIX_LENGTH = 64  # characters of the rendered prompt kept beside a trace, to find an opening thinking tag


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as the teacher sees it; in mode `score` with the completion to score, in `classify` with the labels."""

    token_ids: list[int]
    suffix: str
    scored_token_ids: list[int] | None = None
    scored_cut: bool = False  # the completion was cut before its end
    label_token_ids: list[list[int]] | None = None

    @property
    def to_read_after(self) -> list[int]:
        """What the teacher reads after the prompt: the completion to score, or the longest label."""
        return self.scored_token_ids or max(self.label_token_ids or [[]], key=len)


def with_system_prompt(messages: list[Message], teacher: teacher_config.Teacher) -> list[Message]:
    """The messages with the config's system message first, unless they bring one."""
    if teacher.system_prompt is None or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": teacher.system_prompt}, *messages]


def render_text(prompt: Prompt, tokenizer: Any, teacher: teacher_config.Teacher) -> str:
    """The text that is tokenised: the rendered chat template, or the prompt's own text."""
    messages = _in_template(prompt.messages, teacher.template)
    if teacher.prompt_format == "text":
        return messages[0]["content"]
    return tokenizer.apply_chat_template(
        with_system_prompt(messages, teacher),
        add_generation_prompt=True,
        tokenize=False,
        **teacher.chat_template_kwargs,
    )


def _in_template(messages: list[Message], template: str | None) -> list[Message]:
    """The messages, the last one's text where the template says."""
    if template is None:
        return messages
    *before, last = messages
    return [*before, {**last, "content": template.replace(TEXT_FIELD, last["content"])}]


def render_prompts(prompts: list[Prompt], tokenizer: Any, teacher: teacher_config.Teacher) -> list[RenderedPrompt]:
    """Render and tokenise prompts together.

    A chat template writes its own special tokens, so none are added to it; plain text gets the tokenizer's. A
    completion to score ends with EOS, which a student must learn too; one whose ids are given is scored as it is.
    """
    texts = [render_text(prompt, tokenizer, teacher) for prompt in prompts]
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=teacher.prompt_format == "text")["input_ids"]
    suffixes = [text[-SUFFIX_LENGTH:] for text in texts]
    if teacher.mode != "score":
        labels = label_token_ids(teacher, tokenizer) if teacher.mode == "classify" else None
        return [
            RenderedPrompt(ids, suffix, label_token_ids=labels) for ids, suffix in zip(encoded, suffixes, strict=True)
        ]
    scored = _scored_ids(prompts, tokenizer)
    return [
        RenderedPrompt(ids, suffix, completion, prompt.completion_cut)
        for ids, suffix, completion, prompt in zip(encoded, suffixes, scored, prompts, strict=True)
    ]


def _scored_ids(prompts: list[Prompt], tokenizer: Any) -> list[list[int]]:
    """The ids that a model wrote, or those of a text and EOS."""
    end = [tokenizer.eos_token_id]
    texts = tokenizer([prompt.completion for prompt in prompts], add_special_tokens=False)["input_ids"]
    return [
        prompt.completion_token_ids or (ids if ids[-1:] == end else ids + end)
        for prompt, ids in zip(prompts, texts, strict=True)
    ]
