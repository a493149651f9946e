"""README's configuration reference, made from the config classes: run `python -m distill_data.reference`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from distill_data.config import Config
from distill_data.section import Section, sections_in, tag_of

BEGIN, END = "<!-- config reference: begin -->", "<!-- config reference: end -->"
README = Path(__file__).parent.parent / "README.md"

_NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "mapping", NoneType: "null"}
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def config_reference() -> str:
    """The whole config as Markdown: a table per section, in the order of the config, each once."""
    return "\n\n".join(dict.fromkeys(_section_tables(Config, "", "")))


def with_reference(readme: str) -> str:
    """A README's text with the reference between its markers.

    Raises:
        ValueError: the markers are not there, or not in this order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text lacks {BEGIN} … {END}: put both where the reference goes")
    return f"{before}{BEGIN}\n\n{config_reference()}\n\n{END}{after}"


def _section_tables(section: type[Section], path: str, kind: str) -> list[str]:
    """Table of one section, then those of the sections inside it."""
    title = f"### {f'`{path}`' if path else 'Top level'}{kind}"
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows = [_row(name, field) for name, field in section.model_fields.items()]
    tables = [f"{title}\n\n{inspect.getdoc(section)}\n\n" + "\n".join([*head, *rows])]
    for name, field in section.model_fields.items():
        inner = f"{path}.{name}" if path else name
        if inner in ("prompts.judge", "judge.teacher", "student.publish"):
            continue  # as the config's own
        choices = sections_in(field.annotation)
        for choice in choices:
            tables += _section_tables(choice, inner, _kind(choice) if len(choices) > 1 else "")
    return tables


def _kind(section: type[Section]) -> str:
    """What tells one choice of a union from the others, such as its `source:`."""
    return f" with `{next(iter(section.model_fields))}: {tag_of(section)}`"


def _row(name: str, field: FieldInfo) -> str:
    described = _cell(field.description or "")
    return f"| `{name}` | {_cell(_field_type(field))} | {_cell(_default(field))} | {described} |"


def _field_type(field: FieldInfo) -> str:
    bounds = _bounds(field.metadata)
    return f"{_type_name(field.annotation)}{bounds}"


def _type_name(annotation: Any) -> str:
    """A type as a person would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0]) + _bounds(arguments[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_name(argument) for argument in arguments))
    if origin is list:
        kind, *limits = get_args(arguments[0]) if get_origin(arguments[0]) is Annotated else (arguments[0],)
        return f"list of {_type_name(kind)}s{_bounds(limits)}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return _NAMES[origin or annotation]


def _bounds(metadata: Any) -> str:
    """Limits of a number, such as ` > 0`; inside a union they hang on a field of its own."""
    limits = [
        f"{sign} {getattr(item, key):g}"
        for item in (limit for one in metadata for limit in getattr(one, "metadata", [one]))
        for key, sign in _BOUNDS.items()
        if getattr(item, key, None) is not None
    ]
    return f" {', '.join(limits)}" if limits else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    if isinstance(field.default, Section):
        return "see below"
    text = yaml.safe_dump(field.default, default_flow_style=True, allow_unicode=True)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def main() -> None:
    """Write the reference into README.md."""
    README.write_text(with_reference(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
