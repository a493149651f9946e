from __future__ import annotations

import pytest

from distill_data.config import Config
from distill_data.prompt_config import DatasetPrompts, ReasoningGymPrompts, Section
from distill_data.reference import config_reference, with_reference
from distill_data.section import sections_in
from distill_data.student_config import Loss, NewStudent, Student
from tests.docs.conftest import README


def test_readme_holds_the_reference_as_the_classes_give_it() -> None:
    assert with_reference(README) == README, "run: python -m distill_data.reference"


def test_every_section_of_the_config_has_its_table() -> None:
    titles = [line for line in config_reference().splitlines() if line.startswith("###")]
    assert len(titles) == len(set(titles)) == len(set(_sections(Config)))
    for title in (
        "### Top level",
        "### `prompts` with `source: reasoning_gym`",
        "### `prompts` with `source: dataset`",
        "### `prompts.sampling`",
        "### `teacher.sampling`",
        "### `student.model`",
        "### `student.train.loss`",
    ):
        assert title in titles


def test_every_field_is_documented() -> None:
    for section in _sections(Config):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"


@pytest.mark.parametrize(
    "row",
    [
        "| `temperature` | number ≥ 0, ≤ 2 | `0.7` |",
        "| `limit` | integer > 0 or null | `null` |",
        "| `model` | text or section | **required** |",
        "| `verifier` | `json_schema` | **required** |",
        "| `options` | mapping | `{}` |",
        "| `enforce_eager` | true or false or null | `null` |",
        "| `sampling` | section | see below |",
        "| `prompts` | list of sections | **required** |",
        "| `stop_token_ids` | list of integers ≥ 0 | `[]` |",
        "| `stop_token_ids` | list of integers ≥ 0 or null | `null` |",
    ],
)
def test_types_limits_and_defaults_are_shown(row: str) -> None:
    assert row in config_reference()


def test_choices_of_a_union_are_found_in_order() -> None:
    assert sections_in(Config.model_fields["prompts"].annotation) == [ReasoningGymPrompts, DatasetPrompts]
    assert sections_in(Student.model_fields["model"].annotation) == [NewStudent]
    assert sections_in(Loss.model_fields["kl"].annotation) == []


def test_text_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="put both where the reference goes"):
        with_reference("# a README without them")


def _sections(section: type[Section]) -> list[type[Section]]:
    inner = [kind for field in section.model_fields.values() for kind in sections_in(field.annotation)]
    return [section, *(below for kind in inner for below in _sections(kind))]
