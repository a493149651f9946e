"""Prompts from a local data file, a folder of data files or a dataset of the hub."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import date
from itertools import chain, islice
from pathlib import Path
from typing import Any

from distill_data.errors import InputError
from distill_data.file_hash import file_sha256
from distill_data.identity import canonical_json
from distill_data.package_file import package_file
from distill_data.prompt_config import DatasetPrompts, Mode
from distill_data.prompts.local_files import SUFFIXES, read_rows
from distill_data.records import Message, Prompt

BATCH_ROWS = 1024
PACKAGE_PREFIX = "package://"


def open_dataset(source: DatasetPrompts, mode: Mode = "generate") -> tuple[Iterator[Prompt], dict[str, Any]]:
    """The prompts of a source, made as they are read, and what was read (for the manifest).

    For a teacher in mode `score` they come with the completion to score.

    Raises:
        InputError: no such file or dataset, no such column, no rows; while reading: a value that is no text.
    """
    path = _local_path(source)
    if path.is_file():
        rows, revision = _open_file(source, path)
    elif not path.exists() and (
        path.suffix in SUFFIXES or source.path.startswith((".", "/", "~")) or source.path.count("/") > 1
    ):
        raise InputError(f"source {source.label!r}: {source.path!r} does not exist: correct path:")
    else:
        rows, revision = _load(source)
    first = next(rows, None)
    if first is None:
        raise InputError(f"source {source.label!r}: {source.path!r} has no rows: give another path: or split:")
    for column in source.columns:
        if column not in first:
            there = ", ".join(repr(name) for name in first)
            raise InputError(f"source {source.label!r}: {source.path!r} has no column {column!r}: use one of {there}")
    numbered = enumerate(islice(chain([first], rows), source.limit))
    label = source.label  # a path is parsed to get it
    return (_to_prompt(source, label, mode, number, row) for number, row in numbered), revision


def _local_path(source: DatasetPrompts) -> Path:
    """Where the source would be on this machine."""
    if not source.path.startswith(PACKAGE_PREFIX):
        return Path(source.path).expanduser()
    try:
        return package_file(source.path, PACKAGE_PREFIX)
    except LookupError as error:
        raise InputError(f"source {source.label!r}: {source.path!r}: {error}") from None


def _open_file(source: DatasetPrompts, path: Path) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"source {source.label!r}: {source.path!r} is no {', '.join(SUFFIXES)} file: convert it to one"
        )
    if source.split != "train":
        raise InputError(
            f"source {source.label!r}: a single file has no split {source.split!r}: "
            "remove split:, and use limit: to take only the top"
        )
    return read_rows(path), {"path": source.path, "sha256": file_sha256(path)}


def _load(source: DatasetPrompts) -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """Rows of a folder or hub dataset through `datasets.load_dataset`."""
    import datasets

    try:
        with _quiet_datasets():
            data = datasets.load_dataset(source.path, name=source.subset, split=source.split, revision=source.revision)
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300] or type(error).__name__
        raise InputError(
            f"source {source.label!r}: dataset {source.path!r} cannot be loaded ({reason}): "
            "check path:, subset:, split: and revision:"
        ) from error
    if not isinstance(data, datasets.Dataset):
        raise InputError(f"source {source.label!r}: split {source.split!r} is no single split: name one")
    checksums = data.info.download_checksums or {}
    commits = sorted({name.split("@")[1].split("/")[0] for name in checksums if "@" in name})
    revision = {
        "path": source.path,
        "subset": source.subset,
        "split": source.split,
        "revision": source.revision or (commits[0] if len(commits) == 1 else None),
        "fingerprint": data._fingerprint,
    }
    if all(column in data.column_names for column in source.columns):
        data = data.select_columns(source.columns)  # never decode images and the like that no prompt needs
    return _dataset_rows(data), revision


def _dataset_rows(data: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(data), BATCH_ROWS):
        columns = data[start : start + BATCH_ROWS]
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars and notices from datasets; what fails still raises."""
    import datasets

    hub = logging.getLogger("huggingface_hub")
    level, hub_level = datasets.logging.get_verbosity(), hub.level
    shown = datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    hub.setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if not shown:
            datasets.enable_progress_bars()


def _to_prompt(source: DatasetPrompts, label: str, mode: Mode, number: int, row: dict[str, Any]) -> Prompt:
    place = f"source {label!r}, row {number}"
    completion, reference = None, source.reference_text
    if source.completion is not None:
        completion = _text(row.get(source.completion), f"{place}, column {source.completion!r}")
    if source.reference is not None:
        reference = _reference(row.get(source.reference), f"{place}, column {source.reference!r}")
    if source.prompt is not None:
        text = _text(row.get(source.prompt), f"{place}, column {source.prompt!r}")
        messages = [{"role": "user", "content": text}]
    else:
        chat_place = f"{place}, column {source.messages!r}"
        messages = _messages(row.get(source.messages or ""), chat_place)
        if mode == "score" and completion is None:
            messages, completion = _last_answer(messages, chat_place)
        elif messages and messages[-1]["role"] == "assistant":
            raise InputError(f"{chat_place} ends with an assistant message: end prompts with the user's message")
    return Prompt(messages, label, reference, {"row": number, **_metadata(source, row, place)}, completion)


def _metadata(source: DatasetPrompts, row: dict[str, Any], place: str) -> dict[str, Any]:
    """The columns that verifiers look at, where they are JSON's own kinds."""
    kept = {column: row.get(column) for column in source.metadata}
    for column, value in kept.items():
        try:
            canonical_json(value)
        except TypeError:
            raise InputError(
                f"{place}, column {column!r} is {_shown(value)}: make it text, numbers or lists of them"
            ) from None
    return kept


def _last_answer(chat: list[Message], place: str) -> tuple[list[Message], str]:
    """A chat without its last message, and that message's text; nothing at all is dropped by name later."""
    if not chat:
        return [], ""
    if chat[-1]["role"] != "assistant":
        raise InputError(
            f"{place} ends with a message of role {chat[-1]['role']!r}, so there is no completion to score: end it "
            "with the assistant's message, or name a completion: column"
        )
    return chat[:-1], chat[-1]["content"]


def _messages(value: Any, place: str) -> list[Message]:
    """A chat as `{role, content}` messages."""
    chat = value if isinstance(value, list) else None
    if chat is None or not all(isinstance(item, dict) and {"role", "content"} <= item.keys() for item in chat):
        raise InputError(f"{place} is no list of {{role, content}}: it is {_shown(value)}: correct that row")
    for item in chat:
        if more := [key for key, held in item.items() if key not in ("role", "content") and held is not None]:
            raise InputError(f"{place} has a message with {more[0]!r}: only role and content are read: remove it")
    return [
        {
            "role": _text(item["role"], f"{place}, role"),
            "content": _text(item["content"], f"{place}, content"),
        }
        for item in chat
    ]


def _text(value: Any, place: str) -> str:
    """The text itself, untouched; nothing at all is empty text, which is dropped by name later."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{place} is {_shown(value)}: make it text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place} holds {value[error.start]!r}, half a character: correct that row") from None
    return value


def _reference(value: Any, place: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, date):
        raise InputError(f"{place} was read as a date: give a single file, or Parquet with a text column")
    return _text(value, place)


def _shown(value: Any) -> str:
    """A value for an error message: its kind and its beginning."""
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:57] + '…'}"
