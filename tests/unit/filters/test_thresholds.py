from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.errors import ConfigError
from distill_data.filter_config import Filters
from distill_data.filters import language, thresholds
from distill_data.filters.thresholds import CONTENT_REASONS, active, columns, content_reasons, measure_all
from tests.unit.filters.example_traces import BAD, GOOD, LOOP, SCHEMA, SURE

ALL = Filters(
    min_tokens=3,
    max_tokens=4000,
    max_paragraph_characters=6000,
    max_repetition=0.3,
    max_compression=6.0,
    max_other_script_share=0.2,
    max_code_share=0.1,
    refusals=True,
    leakage=True,
    personal_data=True,
    min_mean_logprob=-1.0,
    min_logprob=-12.0,
    max_mean_entropy=1.0,
)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {field.name: pa.array([row[field.name] for row in rows], field.type) for field in SCHEMA}
    return pa.table(columns)


def reasons(table: pa.Table, filters: Filters = ALL) -> list[str | None]:
    return content_reasons(measure_all(table.select(sorted(columns(filters))), filters), filters).to_pylist()


@pytest.mark.parametrize("name", GOOD)
def test_good_traces_stay(name: str) -> None:
    assert reasons(table_of([GOOD[name]])) == [None]


@pytest.mark.parametrize("name", BAD)
def test_bad_traces_go(name: str) -> None:
    reason, row = BAD[name]
    assert reasons(table_of([row])) == [reason]


def test_rows_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*GOOD.values(), *(row for _, row in BAD.values())]
    expected = [*[None] * len(GOOD), *(reason for reason, _ in BAD.values())]
    table = table_of(rows)
    assert reasons(table) == expected
    assert reasons(pa.concat_tables([table, table]).slice(3, len(table))) == expected[3:] + expected[:3]
    monkeypatch.setattr(thresholds, "_BLOCK_ROWS", 7)
    assert reasons(pa.concat_tables([table, table])) == expected * 2


def test_every_reason_is_explained_and_given_in_order() -> None:
    every = Filters(**{**ALL.model_dump(), "language": None})
    order = [rule.reason for rule in active(every)]
    assert order == [reason for reason in CONTENT_REASONS if reason != "other_language"]
    assert {reason for reason, _ in BAD.values()} == set(order)


def test_the_first_reason_wins() -> None:
    row = SURE | {"completion": "Human: " + LOOP * 30, "completion_tokens": 5000, "mean_logprob": -3.0}
    assert reasons(table_of([row])) == ["too_long"]
    assert reasons(table_of([row]), Filters(max_repetition=0.3, leakage=True)) == ["leakage"]
    assert reasons(table_of([row]), Filters(max_repetition=0.3, min_mean_logprob=-1.0)) == ["repetition"]


def test_a_value_at_its_threshold_stays_and_nothing_said_never_goes() -> None:
    filters = Filters(min_tokens=3, max_tokens=5, max_repetition=0.5)
    measures = {"tokens": np.array([2, 3, 5, 6, np.nan], np.float32), "repetition": np.array([0, 0.5, np.nan, 0, 1])}
    assert content_reasons(measures, filters).to_pylist() == ["too_short", None, None, "too_long", "repetition"]


def test_only_what_active_rules_read_is_read() -> None:
    assert columns(Filters()) == set() and active(Filters()) == [] and measure_all(table_of([SURE]), Filters()) == {}
    assert columns(Filters(max_mean_entropy=1.0)) == {"support_counts", "support_logprobs"}
    assert columns(Filters(max_code_share=0.1, min_tokens=2)) == {"completion", "prompt", "completion_tokens"}
    assert columns(ALL) == set(SCHEMA.names)


def test_an_empty_table() -> None:
    measures = measure_all(table_of([]), ALL)
    assert measures.keys() == {rule.measure.name for rule in active(ALL)}
    assert all(len(values) == 0 and values.dtype == np.float32 for values in measures.values())
    assert content_reasons(measures, ALL) == pa.array([], pa.string())


def test_a_language_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lingua", None)
    with pytest.raises(ConfigError, match=r"lingua-language-detector is not installed: run `pip install"):
        columns(Filters(language=["en"]))


def test_languages() -> None:
    pytest.importorskip("lingua")
    german = "Der Zug fährt um neun Uhr ab und kommt nach drei Stunden an; deshalb ist die Antwort zwölf."
    english = "The train leaves at nine and arrives three hours later, therefore the answer is twelve."
    rows = [SURE | {"completion": text} for text in (german, english, "$x$ 12 + 3", None)]
    assert reasons(table_of(rows), Filters(language=["en"])) == ["other_language", None, None, None]
    assert reasons(table_of(rows), Filters(language=["de", "en"])) == [None] * 4
    with pytest.raises(ConfigError, match="'xx', which lingua-language-detector does not know"):
        language.check_language(["xx"])
