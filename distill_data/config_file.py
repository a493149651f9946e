"""Read a config: YAML and `--set` overrides in, a checked `Config` or one clear line out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distill_data.config import Config
from distill_data.config_problems import explain_problems
from distill_data.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
# What PyYAML raises on a text that is no YAML, on 2024-13-45 as a date, and on thousands of nested brackets.
_NOT_YAML = (yaml.YAMLError, ValueError, TypeError, RecursionError)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML that refuses the same key twice instead of keeping the last one."""

    def __init__(self, stream: str):
        super().__init__(stream)
        self._checked: set[int] = set()

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Check the keys as they are written, before `<<` puts those of another mapping among them."""
        if id(node) not in self._checked:
            self._checked.add(id(node))
            self._refuse_same_keys(node)
        super().flatten_mapping(node)

    def _refuse_same_keys(self, node: yaml.MappingNode) -> None:
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != _MERGE]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"line {node.start_mark.line + 1}: key {key!r} is given twice: remove one")


# YAML 1.1 reads 1e-3 as text; people write it as a number.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read a YAML config and apply `key.path=value` overrides (values are YAML).

    Raises:
        ConfigError: the file is missing, is not YAML, or does not fit; every problem is one line.
    """
    file = Path(path)
    try:
        if not file.is_file():
            raise ConfigError(f"config {file} does not exist: give the path of a YAML file")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {file} cannot be read ({error.strerror or error}): check its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {file} is not valid YAML: {error}") from None
    try:
        tree = _unshared(_parse_yaml(text))
    except _NOT_YAML as error:
        raise ConfigError(f"config {file} is not valid YAML: {_one_line(error)}") from None
    except ConfigError as error:
        raise ConfigError(f"config {file}, {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {file} holds no mapping: start it with name:, prompts: and teacher:")
    for override in overrides:
        _apply_override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(explain_problems(error))
        raise ConfigError(f"config {file}: {problems}") from None


# `key: text: more text` on one line, which YAML refuses and which can mean only one thing.
_UNQUOTED_TEXT = re.compile(r"(\s*(?:- )?[\w.-]+: +)([^\s'\"\[{|>&*!#%@`].*?)(\s+#.*)?")


def _parse_yaml(text: str) -> Any:
    """Parse YAML; an unquoted text with a colon in it, as system prompts have, is taken as the text it is."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        if error.problem != "mapping values are not allowed here" or error.problem_mark is None:
            raise
        lines = text.splitlines()
        number = error.problem_mark.line
        line = _UNQUOTED_TEXT.fullmatch(lines[number])
        if line is None:
            raise
        quoted = line[2].replace("'", "''")
        lines[number] = f"{line[1]}'{quoted}'{line[3] or ''}"
        return _parse_yaml("\n".join(lines))


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in a parsed YAML tree, making sections on the way; digits index lists."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise ConfigError(f"--set {override!r} is not of the form key.path=value")
    try:
        value = _unshared(yaml.load(text, Loader=_UniqueKeyLoader))
    except _NOT_YAML:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value: quote it") from None
    except ConfigError as error:
        raise ConfigError(f"--set {override!r}, {error}") from None
    *parents, last = path.split(".")
    node: Any = tree
    for key in parents:
        if isinstance(node, dict) and not isinstance(node.get(key), dict | list):
            node[key] = {}
        node = node[_slot(node, key, override)]
    node[_slot(node, last, override)] = value


def _slot(node: Any, key: str, override: str) -> str | int:
    """Where one step of a path leads in a parsed tree: a key of a section, or an index of a list."""
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise ConfigError(f"--set {override!r}: {key!r} is a key inside {node!r}: write keys and values there first")
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(node):
        raise ConfigError(f"--set {override!r}: {key!r} is no index of a list of {len(node)}: count from 0")
    return int(key)


def _unshared(tree: Any) -> Any:
    """A copy in which an anchor's uses are apart, so that setting a key in one changes no other."""
    if isinstance(tree, dict):
        return {key: _unshared(value) for key, value in tree.items()}
    return [_unshared(value) for value in tree] if isinstance(tree, list) else tree


def _one_line(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or holds itself"
    return " ".join(str(error).split())
