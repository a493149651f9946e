"""What a section of the config is, and the kinds of values that several sections have."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

from distill_data.identity import canonical_json


def _can_be_hashed(options: dict[str, Any]) -> dict[str, Any]:
    try:
        canonical_json(options)
    except TypeError as error:
        raise ValueError(f"{str(error).removeprefix('value.')}: use text, numbers, true, false, lists") from None
    return options


Options = Annotated[dict[str, Any], AfterValidator(_can_be_hashed)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Temperature = Annotated[float, Field(ge=0.0, le=2.0)]
TopP = Annotated[float, Field(gt=0.0, le=1.0)]
TokenIds = Annotated[list[NonNegativeInt], AfterValidator(lambda ids: sorted(set(ids)))]  # their order means nothing
Mode = Literal["generate", "score", "classify"]


class Section(BaseModel):
    """A part of the config: frozen, unknown keys refused, `true` and `"5"` are no numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )


def sections_in(annotation: Any) -> list[type[Section]]:
    """The section classes in a field's type, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for argument in get_args(annotation) for section in sections_in(argument)]


def tag_of(section: type[Section]) -> str | None:
    """What tells one section of a union from the others: the only value that its first key can have."""
    values = get_args(next(iter(section.model_fields.values())).annotation)
    return values[0] if len(values) == 1 and isinstance(values[0], str) else None


def require_own_labels(labels: list[str], what: str) -> None:
    """Raise ValueError if two of a list's sections, which are `what`, have one label."""
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"two {what} are named {twice[0]!r}: give one of them another name:")


def require_distinct(values: list[str], what: str) -> list[str]:
    """The values; raises ValueError if two are the same."""
    if twice := sorted({value for value in values if values.count(value) > 1}):
        raise ValueError(f"{twice[0]!r} is twice in {what}: leave one out")
    return values
