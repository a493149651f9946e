from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_data.config import Config
from distill_data.corpus.assemble import assemble
from distill_data.errors import CorpusError, InputError
from distill_data.prompts import PromptSet
from distill_data.screening import prompts_of
from tests.unit.corpus.conftest import MakeJob, make_job, make_prompts, make_trace

__all__ = ["make_job"]  # a fixture

ROADS = "A train leaves the station at noon and reaches the next town {n} kilometres away in two hours: how fast is it?"
BAKER = "A baker sells {n} loaves of bread in the morning and half as many later: how many does he sell in all?"


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def settings(tmp_path: Path, texts: list[str], **sections: Any) -> Config:
    source = {
        "source": "dataset",
        "path": lines(tmp_path / "own.jsonl", [{"q": text} for text in texts]),
        "prompt": "q",
    }
    return Config.model_validate(
        {"name": "mine", "root": str(tmp_path), "prompts": [source], "teacher": {"model": "m"}, **sections}
    )


def asked(prompts: PromptSet) -> list[str]:
    return [chat[-1]["content"] for chat in prompts.table["messages"].to_pylist()]


def dropped(prompts: PromptSet) -> list[tuple[str, str, str]]:
    rows = prompts.dropped.to_pylist()
    return [(row["messages"][-1]["content"], row["drop_reason"], row["drop_detail"]) for row in rows]


def test_without_the_sections_nothing_is_dropped(tmp_path: Path) -> None:
    texts = [ROADS.format(n=1), ROADS.format(n=1).upper(), BAKER.format(n=2)]
    assert asked(prompts_of(settings(tmp_path, texts))) == texts


def test_a_prompt_with_text_of_a_benchmark_is_dropped_and_the_benchmark_named(tmp_path: Path) -> None:
    test = lines(tmp_path / "test.jsonl", [{"question": ROADS.format(n=120)}])
    held = f"Solve this. {ROADS.format(n=120).upper()} Show every step."
    section = {"benchmarks": [{"path": test, "text": ["question"], "name": "trains"}]}
    found = prompts_of(settings(tmp_path, [BAKER.format(n=8), held], decontaminate=section))
    assert asked(found) == [BAKER.format(n=8)]
    ((text, reason, detail),) = dropped(found)
    assert (text, reason) == (held, "contaminated")
    assert detail.startswith("benchmark trains: ") and "'a train leaves the station" in detail


def test_of_near_duplicates_the_first_one_stays(tmp_path: Path) -> None:
    texts = [ROADS.format(n=90), BAKER.format(n=3), f"{ROADS.format(n=90).rstrip('?')}, please?"]
    found = prompts_of(settings(tmp_path, texts, deduplicate={"prompts": "drop", "prompt_similarity": 0.7}))
    assert asked(found) == texts[:2]
    first = found.table["prompt_id"][0].as_py()
    assert dropped(found) == [(texts[2], "near_duplicate_prompt", f"nearly the same as prompt {first}")]
    more = prompts_of(settings(tmp_path, [*texts, "Why?"], deduplicate={"prompts": "drop", "prompt_similarity": 0.7}))
    assert asked(more) == [*texts[:2], "Why?"]


def test_grouped_near_duplicates_stay_in_one_group(tmp_path: Path) -> None:
    texts = [ROADS.format(n=90), BAKER.format(n=3), f"{ROADS.format(n=90).rstrip('?')}, please?"]
    found = prompts_of(settings(tmp_path, texts, deduplicate={"prompts": "group", "prompt_similarity": 0.7}))
    groups = found.table["group_id"].to_pylist()
    assert asked(found) == texts and groups[0] == groups[2] != groups[1]
    assert found.table["prompt_id"].to_pylist() == prompts_of(settings(tmp_path, texts)).table["prompt_id"].to_pylist()


def test_prompts_of_another_corpus_are_dropped(tmp_path: Path, make_job: MakeJob) -> None:
    prompts = make_prompts(6)
    assemble(make_job(prompts=prompts, validation={"fraction": 0.5}), lambda progress: None)
    texts = ["What is 3 + 1?", "What is 77 + 1?"]
    found = prompts_of(settings(tmp_path, texts, deduplicate={"against": ["sums@v1"], "prompt_similarity": 0.95}))
    assert asked(found) == ["What is 77 + 1?"]
    seen = prompts[3].prompt_id
    assert dropped(found) == [("What is 3 + 1?", "seen_in_other_corpus", f"nearly the same as sums@v1, prompt {seen}")]
    with pytest.raises(CorpusError, match="does not exist"):
        prompts_of(settings(tmp_path, texts, deduplicate={"against": ["other@v9"]}))


def test_when_nothing_is_left_it_says_why(tmp_path: Path) -> None:
    test = lines(tmp_path / "test.jsonl", [{"question": ROADS.format(n=120)}])
    section = {"benchmarks": [{"path": test, "text": ["question"]}]}
    with pytest.raises(InputError, match=r"no prompt is left \(contaminated\): loosen"):
        prompts_of(settings(tmp_path, [ROADS.format(n=120)], decontaminate=section))


def test_samples_of_one_prompt_that_are_nearly_the_same(make_job: MakeJob) -> None:
    long = "First add the tens, then add the units, then put both together and look at the result again: it is {n}."
    prompts = make_prompts(2)
    said = [long.format(n=7), long.format(n=7).upper(), "Just 7.", long.format(n=7)]
    traces = [make_trace(prompt, sample, text) for prompt in prompts for sample, text in enumerate(said)]
    manifest = assemble(make_job(prompts, traces, deduplicate={"samples": "drop"}), lambda progress: None)
    assert manifest.dropped == {"near_duplicate_sample": 4} and manifest.counts["kept"] == 4
    assert assemble(make_job(prompts, traces), lambda progress: None).counts["kept"] == 8
