from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.config import Config
from distill_data.corpus.assemble import assemble
from distill_data.corpus.digest import corpus_digest
from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.versions import version_folder
from distill_data.errors import CorpusError, InputError
from distill_data.filters.benchmark_texts import load_benchmarks
from distill_data.prompts import PromptSet
from distill_data.report.version import corpus_summary
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

    facts = found.benchmarks["trains"]
    assert (facts["path"], facts["texts"], facts["prompts"]) == (test, 1, 1) and len(facts["texts_sha256"]) == 64


def recital(folder: Path, make_job: MakeJob, **section: Any) -> tuple[Manifest, Path]:
    """A corpus of which one trace recites a benchmark and one is short, assembled."""
    folder.mkdir(exist_ok=True)
    exam = lines(folder / "exam.jsonl", [{"question": ROADS.format(n=120), "short": "It is 3."}])
    said = [f"<think>I know this one. {ROADS.format(n=120)} </think>It is 3.", "It is 3.", "It is 4 then."]
    prompts = make_prompts(1)
    traces = [make_trace(prompts[0], sample, text) for sample, text in enumerate(said)]
    benchmark = {"path": exam, "text": ["question", "short"], "name": "trains"}
    job = make_job(prompts, traces, root=folder, decontaminate={"benchmarks": [benchmark], **section})
    benchmarks, facts = load_benchmarks(job.config.decontaminate)
    compared = benchmarks if job.config.decontaminate.traces == "drop" else None
    pinned = {label: {**fact, "prompts": 0} for label, fact in facts.items()}
    job = replace(job, benchmarks=compared, prompts=replace(job.prompts, benchmarks=pinned))
    manifest = assemble(job, lambda progress: None)
    return manifest, version_folder(job.config.root, job.config.name, manifest.version)


def test_a_trace_that_recites_a_benchmark_is_set_aside_with_its_name(tmp_path: Path, make_job: MakeJob) -> None:
    manifest, folder = recital(tmp_path, make_job, traces="drop")
    assert manifest.dropped == {"recited_benchmark": 1} and manifest.counts["kept"] == 2
    facts = manifest.prompts.benchmarks["trains"]
    assert (facts["prompts"], facts["traces"], facts["texts"]) == (0, 1, 2)
    (row,) = pq.read_table(folder / "rejected").to_pylist()
    assert row["drop_reason"] == "recited_benchmark" and row["sample_index"] == 0
    assert row["drop_detail"].startswith("benchmark trains: ") and "such as 'a train leaves the" in row["drop_detail"]
    assert "`trains`: 0 prompts and 1 traces with its text" in (folder / "README.md").read_text(encoding="utf-8")
    assert "0 prompts, 1 traces touched it" in corpus_summary(Corpus(folder, manifest))


def test_recitals_stay_where_they_are_not_asked_about_or_few_enough(tmp_path: Path, make_job: MakeJob) -> None:
    manifest, folder = recital(tmp_path / "off", make_job)
    assert manifest.counts["kept"] == 3 and "traces" not in manifest.prompts.benchmarks["trains"]
    assert "`trains`: 0 prompts with its text" in (folder / "README.md").read_text(encoding="utf-8")
    assert recital(tmp_path / "few", make_job, traces="drop", max_trace_ngrams=50)[0].counts["kept"] == 3


def test_another_content_of_a_benchmark_is_another_digest(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    section = {"benchmarks": [{"path": str(test), "text": ["question"], "name": "trains"}]}

    def digest_with(question: str) -> tuple[str, str]:
        lines(test, [{"question": question}])
        config = settings(tmp_path, [BAKER.format(n=8)], decontaminate=section)
        prompts = prompts_of(config)
        finished = pa.table({"prompt_row": [0], "sample_index": [0], "content_digest": ["x"]})
        return prompts.digest, corpus_digest(config, prompts.digest, "teacher", finished, prompts.benchmarks)

    (prompts, one), (same, two) = digest_with(ROADS.format(n=1)), digest_with(ROADS.format(n=2))
    assert prompts == same and one != two
    assert digest_with(ROADS.format(n=1)) == (prompts, one)


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
