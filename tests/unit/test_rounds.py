"""The on-policy loop with the replay teacher: what is asked, scored, trained on, and found again after a kill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.check import verify_corpus
from distill_data.corpus.read import open_corpus
from distill_data.corpus.versions import list_versions
from distill_data.errors import StudentError
from distill_data.evaluation.asked import held_out_rows
from distill_data.prompts import PromptSet, load_prompts
from distill_data.rounds import RoundsReport, Standing, Watch, begin, loop, play_round, report_rounds, rounds_summary
from distill_data.rounds.answers import trained_on
from distill_data.rounds_config import Rounds
from distill_data.servers_config import Servers
from distill_data.teacher_identity import identify_teacher
from distill_data.teachers.generation import NO_BUDGET, Budget
from distill_data.trace_store import TraceStore
from tests.pool.replay_job import InlinePool, committed, make_config, plan, write_prompts

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
SECTIONS: dict[str, Any] = {
    "student": {"model": {"from_config": LLAMA}, "train": {"steps": 3, "batch_size": 4}},
    "validation": {"fraction": 0.2},
    "rounds": {"count": 2, "sampling": {"samples": 2, "max_tokens": 12}, "steps": 2, "learning_rate": 1e-3},
}


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)


def make_job(root: Path, tiny_model: Path, count: int = 12, **sections: Any) -> Config:
    """A config of so many prompts whose first version is there."""
    root.mkdir(exist_ok=True)
    settings = make_config(root / "data", tiny_model, write_prompts(root / "p.jsonl", count), **SECTIONS | sections)
    planned = plan(settings)
    generate_missing(planned, lambda _: None)
    assemble_version(planned, lambda _: None)
    return settings


def asked(settings: Config) -> PromptSet:
    return load_prompts(list(settings.prompts))


def play(settings: Config, budget: Budget = NO_BUDGET) -> tuple[Standing, RoundsReport]:
    standing = begin(settings, f"{settings.name}@v1", asked(settings))
    while not standing.is_over:
        standing = play_round(standing, Watch(), budget)
    return standing, report_rounds(standing)


def stores(settings: Config) -> dict[str, Counter[tuple[str, int]]]:
    """What every trace store of a root holds, repeated rows and all."""
    folder = Path(settings.root) / "traces"
    return {entry.name: committed(TraceStore(settings.root, entry.name)) for entry in sorted(folder.iterdir())}


def rounds_of(settings: Config) -> list[Any]:
    name = f"{settings.name}-rounds"
    return [open_corpus(f"{name}@v{version}", settings.root) for version in list_versions(settings.root, name)]


@pytest.fixture(scope="module")
def played(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[tuple[Config, Standing, RoundsReport]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        settings = make_job(tmp_path_factory.mktemp("rounds"), tiny_model)
        yield settings, *play(settings)


Played = tuple[Config, Standing, RoundsReport]


def test_every_round_is_a_version_a_student_and_a_point_of_the_curve(played: Played) -> None:
    settings, standing, report = played
    assert [result.corpus for result in report.rounds] == ["replayed@v1", "replayed-rounds@v1", "replayed-rounds@v2"]
    assert len({result.student for result in report.rounds}) == 3
    assert [result.steps for result in report.rounds] == [3, 2, 2]
    held_out = len(standing.first.table("traces", "validation"))
    assert {result.held_out.traces for result in report.rounds} == {held_out}  # the same rows, every time
    assert len({result.held_out.kl for result in report.rounds}) == 3
    curve = json.loads((standing.student.folder / "rounds.json").read_text())
    assert [one["held_out"]["kl"] for one in curve["rounds"]] == [one.held_out.kl for one in report.rounds]
    shown = rounds_summary(report)
    assert all(f"{result.held_out.kl:.3f}" in shown and result.corpus in shown for result in report.rounds)
    assert list_versions(settings.root, "replayed") == [1]  # the teacher's own stay what NAME is


def test_what_the_student_wrote_is_scored_token_by_token(played: Played) -> None:
    settings, standing, _ = played
    answered = {}
    for corpus in rounds_of(settings):
        (source,) = {facts["teacher_id"] for facts in corpus.manifest.prompts.sources.values()}
        store = TraceStore(settings.root, source)
        index = store.index()
        said = store.read(index.select(["part", "row"]), ["completion_token_ids", "finish_reason"])
        answered[source] = {tuple(ids) for ids in said["completion_token_ids"].to_pylist()}
        assert set(said["finish_reason"].to_pylist()) == {"length"}  # 12 tokens are too few for what replay says
        traces, labels = corpus.table("traces"), corpus.table("soft_labels")
        assert {tuple(ids) for ids in labels["completion_token_ids"].to_pylist()} == answered[source]
        assert set(traces["finish_reason"].to_pylist()) == {"length"}  # and no EOS was made up for them
        assert corpus.manifest.teacher["mode"] == "score" and corpus.splits == ("train",)
        assert verify_corpus(corpus) == []
    assert len(answered) == 2  # another student, another trace store
    assert standing.first.manifest.teacher_id not in answered


def test_held_out_prompts_are_never_asked(played: Played) -> None:
    settings, standing, _ = played
    away = set(standing.first.table("traces", "validation")["prompt_id"].to_pylist())
    everything = set(asked(settings).table["prompt_id"].to_pylist())
    assert set(standing.asked.table["prompt_id"].to_pylist()) == everything - away and away
    chats = standing.first.table("traces", "validation")["messages"].to_pylist()
    held_out = {chat[0]["content"] for chat in chats}
    for corpus in rounds_of(settings):
        assert not held_out & {chat[0]["content"] for chat in corpus.table("traces")["messages"].to_pylist()}


def test_prompts_of_a_held_out_group_are_not_asked_either(played: Played, tmp_path: Path) -> None:
    """A prompt that is new, and one that is held out, have the same messages."""
    settings, standing, _ = played
    more = make_config(tmp_path, Path(settings.teacher.model), write_prompts(tmp_path / "p.jsonl", 13), **SECTIONS)
    prompts = asked(more)
    *there, new = prompts.table["prompt_id"].to_pylist()
    assert set(there) == set(asked(settings).table["prompt_id"].to_pylist())
    away = standing.first.table("traces", "validation")["prompt_id"][0].as_py()
    groups = prompts.table["group_id"].to_pylist()
    groups[-1] = groups[there.index(away)]
    place = prompts.table.schema.get_field_index("group_id")
    joined = PromptSet(prompts.table.set_column(place, "group_id", pa.array(groups)), prompts.dropped, {})
    trained = trained_on(joined, standing.first).table["prompt_id"].to_pylist()
    assert new not in trained and set(trained) == set(standing.asked.table["prompt_id"].to_pylist())


def test_held_out_prompts_without_a_row_are_left_to_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    """Of prompts that the teacher never got right a version has no row, and only their hash says their side."""
    sections = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}, "validation": {"fraction": 0.3}}
    settings = make_job(tmp_path, tiny_model, 40, **sections)
    first, prompts = open_corpus("replayed@v1", settings.root), asked(settings)
    rows = held_out_rows(prompts.table, first, [settings.prompts[0].label], 256)
    evaluated = set(prompts.table["prompt_id"].take(rows).to_pylist())
    seen = {split: set(first.table("traces", split)["prompt_id"].to_pylist()) for split in ("train", "validation")}
    trained = set(trained_on(prompts, first).table["prompt_id"].to_pylist())
    assert seen["validation"] < evaluated and seen["train"] < trained  # some without a row on either side
    assert not trained & evaluated
    assert trained | evaluated == set(prompts.table["prompt_id"].to_pylist())


def test_played_again_nothing_is_new(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _, report = played

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("something was made again")

    for name in ("train", "evaluate"):
        monkeypatch.setattr(loop, name, forbidden)
    monkeypatch.setattr("distill_data.session.TeacherPool", forbidden)
    _, again = play(settings)
    assert again.rounds == report.rounds and again.generated_traces == 0


STEPS = ["generate_missing", "assemble_version", "train", "evaluate"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [pytest.param(False, marks=pytest.mark.long), True], ids=["before", "after"])
def test_killed_around_any_step_it_goes_on_to_the_same_digests(
    played: Played, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """The first and the third time that the step comes, the loop dies, right before or right after it."""
    settings = make_job(tmp_path, tiny_model)
    real: Callable[..., Any] = getattr(loop, step)
    calls = 0

    def killing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (1, 3) and not after:
            raise Killed
        done = real(*arguments, **options)
        if calls in (1, 3):
            raise Killed
        return done

    monkeypatch.setattr(loop, step, killing)
    deaths = 0
    while True:
        try:
            _, report = play(settings)
            break
        except Killed:
            deaths += 1
    assert deaths == 2
    undisturbed, _, whole = played
    assert [one.manifest.digest for one in rounds_of(settings)] == [
        one.manifest.digest for one in rounds_of(undisturbed)
    ]
    assert [one.held_out for one in report.rounds] == [one.held_out for one in whole.rounds]
    assert all(set(rows.values()) == {1} for rows in stores(settings).values())  # nothing was made twice
    assert stores(settings) == stores(undisturbed)
    assert len(list((Path(settings.root) / "students").glob("replayed*"))) == 3


def test_a_spent_budget_pauses_the_loop_and_it_goes_on(played: Played, tiny_model: Path, tmp_path: Path) -> None:
    settings = make_job(tmp_path, tiny_model)
    standing, paused = play(settings, Budget(max_tokens=1))
    assert paused.paused == "--max-tokens 1 is reached" and standing.number == 0
    assert "--max-tokens 1 is reached: the same command goes on" in rounds_summary(paused)
    assert not list(Path(settings.root).rglob("rounds.json"))
    assert play(settings)[1].rounds == played[2].rounds


def test_the_teachers_own_answers_are_scored_once_and_in_every_version(tiny_model: Path, tmp_path: Path) -> None:
    rounds = SECTIONS["rounds"] | {"teachers_own": True}
    settings = make_job(tmp_path, tiny_model, rounds=rounds)
    standing, _ = play(settings)
    own = {tuple(ids) for ids in standing.first.table("soft_labels")["completion_token_ids"].to_pylist()}
    for corpus in rounds_of(settings):
        there = {tuple(ids) for ids in corpus.table("soft_labels")["completion_token_ids"].to_pylist()}
        assert own < there
    scoring = rounds_of(settings)[-1].manifest.teacher_id
    assert set(stores(settings)[scoring].values()) == {1}


def test_a_student_answers_in_the_context_that_it_has(played: Played) -> None:
    from distill_data.rounds.jobs import plan_answers

    settings, standing, _ = played
    teacher = plan_answers(settings, 1, standing.student, standing.asked).config.teacher
    assert teacher.engine.max_model_len == 128
    assert teacher.sampling.temperature == 1.0 and teacher.sampling.samples == 2
    assert identify_teacher(teacher).teacher_id != identify_teacher(settings.teacher).teacher_id


def test_a_student_does_not_answer_from_the_teachers_servers(played: Played) -> None:
    from distill_data.rounds.jobs import plan_answers

    settings, standing, _ = played
    engine = settings.teacher.engine.model_copy(update={"servers": Servers(urls=["http://gpu-1:8000/v1"])})
    served = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"engine": engine})})
    assert plan_answers(served, 1, standing.student, standing.asked).config.teacher.engine.servers is None


def test_nothing_held_out_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    settings = make_job(tmp_path, tiny_model, rounds=None, validation={"fraction": 0.0})
    with pytest.raises(StudentError, match="holds nothing out to measure rounds on"):
        begin(settings, "replayed@v1", asked(settings))


def test_a_number_is_the_count_and_rounds_are_no_part_of_a_version(tiny_model: Path, tmp_path: Path) -> None:
    settings = make_config(tmp_path, tiny_model, tmp_path / "p.jsonl", **SECTIONS | {"rounds": 3})
    assert settings.rounds == Rounds(count=3)
    assert "rounds" not in settings.of_a_version
    assert Config.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"student": None}, "there is no student to learn"),
        ({"student": SECTIONS["student"] | {"tokenizer": "org/other"}}, "set student.tokenizer: teacher"),
        ({"validation": {"fraction": 0.0}}, "validation.fraction is 0: set it above 0"),
        ({"rounds": {"count": 1, "loss": {"objective": "text"}}}, "which compares no token by token"),
        (
            {
                "rounds": {"count": 1, "loss": {"objective": "reverse_kl"}},
                "teacher": {"soft_labels": {"kind": "sampled"}},
            },
            "which does not estimate it",
        ),
        ({"rounds": {"count": 0}}, "greater than 0"),
        ({"rounds": {"count": 1, "sampling": {"temperature": 0.0, "samples": 2}}}, "gives the same trace 2 times"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(
    tiny_model: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(tmp_path, tiny_model, tmp_path / "p.jsonl", **SECTIONS | sections)
