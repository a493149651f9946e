"""Real vLLM engines that die or hang, of a prompt or of everything.

Prompts are poisonous by a letter that the others do not have; see `poison/sitecustomize.py`, which workers load.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from distill_data.build import BuildPlan, generate_missing, plan_build
from distill_data.errors import TeacherError
from distill_data.prompts import load_prompts
from distill_data.teachers.generation import GenerationProgress
from tests.engine.conftest import engine_of, exact_settings
from tests.pool.replay_job import committed, plan, wanted
from tests.processes import workers

pytestmark = [pytest.mark.engine, pytest.mark.long]

LETTERS = {"kill": "X", "raise": "Q", "hang": "Z"}  # how the engine ends that sees one of them
HANG_SECONDS = 5.0

MakeBuild = Callable[..., BuildPlan]


@pytest.fixture
def make_build(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> MakeBuild:
    """Builds over prompts with these texts; engines of poisonous ones die, and are started again at once."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    poison = {str(tokenizer.convert_tokens_to_ids(letter)): how for how, letter in LETTERS.items()}
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "poison"))
    monkeypatch.setenv("POISON", json.dumps(poison))
    monkeypatch.setattr("distill_data.teachers.slot.BACKOFF_SECONDS", 0.0)

    def make(texts: list[str], sequences: int, samples: int = 1, max_tokens: int = 8) -> BuildPlan:
        file = tmp_path / "prompts.jsonl"
        file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        sampling = {"samples": samples, "temperature": 1.0, "max_tokens": max_tokens}
        engine = engine_of(max_num_seqs=sequences, hang_seconds=HANG_SECONDS)
        source = {"source": "dataset", "path": str(file), "prompt": "text"}
        return plan(exact_settings(tiny_model, tmp_path, [source], sampling=sampling, engine=engine))

    return make


def harmless(count: int) -> list[str]:
    return [f"What is {number}?" for number in range(count)]


def failures(build: BuildPlan) -> list[tuple[str, str, str]]:
    """Text, error and detail of the traces that have none, in planned order."""
    rows = build.store.read(plan(build.config).plan.finished).to_pylist()
    prompts = build.prompts.table.to_pylist()
    texts = {prompt["prompt_id"]: prompt["messages"][0]["content"] for prompt in prompts}
    return [(texts[row["prompt_id"]], row["error"], row["error_detail"]) for row in rows if row["error"]]


def dead_letters(build: BuildPlan) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (build.store.folder / "dead_letters.jsonl").read_text().splitlines()]


def test_a_prompt_that_kills_the_engine_is_found_and_the_build_goes_on(make_build: MakeBuild) -> None:
    """Six traces are in flight, two of each prompt: they die three times together, once alone, then by halves."""
    build = make_build(["X kills", *harmless(7)], sequences=4, samples=2)
    _, report = generate_missing(build, lambda progress: None)
    assert committed(build.store) == wanted(build)
    assert failures(build) == [("X kills", "engine_died", "killed by SIGKILL")] * 2
    assert (report.restarts, report.dead_letters, report.traces) == (3 + 1 + 1, 2, 16)
    assert report.regenerated == 4 * 6 + 2
    killer = build.prompts.table["prompt_id"][0].as_py()
    found = sorted((letter["prompt_id"], letter["sample_index"], letter["cause"]) for letter in dead_letters(build))
    assert found == [(killer, sample, "killed by SIGKILL") for sample in (0, 1)]
    assert len(plan(build.config).plan.missing) == 0  # it is not asked again and again
    retried = plan_build(build.config, load_prompts(list(build.config.prompts)), retry_failed=True)
    assert retried.plan.missing["prompt_row"].to_pylist() == [0, 0]


def test_engines_that_raise_and_that_hang_are_told_apart(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three in flight, the first raises and the last hangs; here one death makes a suspect."""
    monkeypatch.setattr("distill_data.teachers.dispatch.DEATHS_OF_A_SUSPECT", 1)
    build = make_build(["Q raises", "What is 12?", "Z hangs", *harmless(5)], sequences=2)
    _, report = generate_missing(build, lambda progress: None)
    assert committed(build.store) == wanted(build)
    (raised, hung) = failures(build)
    assert raised[:2] == ("Q raises", "engine_died") and raised[2].startswith("EngineDeadError: EngineCore encountered")
    assert hung == ("Z hangs", "engine_died", f"no token in {HANG_SECONDS:g} s (engine.hang_seconds)")
    assert {letter["cause"] for letter in dead_letters(build)} == {raised[2], hung[2]}
    assert (report.restarts, report.dead_letters) == (1 + 1 + 1 + 1 + 1, 2)


def test_an_engine_that_dies_of_everything_ends_the_build_and_keeps_what_is_finished(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_data.teachers.slot.BARREN_DEATHS", 3)
    build = make_build([*harmless(3), *(f"Q raises {number}" for number in range(9))], sequences=1)
    with pytest.raises(TeacherError, match=r"keep dying, at last: EngineDeadError: .*; 9 traces are missing") as caught:
        generate_missing(build, lambda progress: None)
    (log,) = (Path(build.config.root) / "logs").iterdir()
    assert f"everything committed is kept: see {log}, then run the same command again" in str(caught.value)
    assert log.read_text().count("EngineDeadError: ") >= 3
    assert sum(committed(build.store).values()) == 3
    again = plan(build.config).plan
    assert again.missing["prompt_row"].to_pylist() == list(range(3, 12))
    assert again.finished["error"].to_pylist() == [None] * 3
    assert not (build.store.folder / "dead_letters.jsonl").exists()


def test_a_killed_engine_core_costs_one_start_and_no_trace(
    make_build: MakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, vLLM's engine core is a process of its own here."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    build = make_build(harmless(20), sequences=1, max_tokens=60)
    killed: list[int] = []

    def kill_core(_: GenerationProgress) -> None:
        if not killed and len(build.store.parts()) >= 2:
            (worker,) = workers()
            (core,) = [child for child in worker.children() if "EngineCore" in " ".join(child.cmdline())]
            core.kill()
            killed.append(core.pid)

    _, report = generate_missing(build, kill_core)
    assert len(killed) == 1
    assert committed(build.store) == wanted(build)
    assert failures(build) == []
    assert (report.restarts, report.dead_letters, report.traces) == (1, 0, 20)
    assert report.regenerated <= 1  # what was in flight; the worker lives and commits what was finished
    assert workers() == []
