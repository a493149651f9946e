"""Two rounds with real engines: a float32 student answers, its float32 teacher scores, the student trains on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.prompts import load_prompts
from distill_data.rounds import RoundsReport, Standing, Watch, begin, play_round, report_rounds
from distill_data.trace_store import TraceStore
from tests.engine.conftest import engine_of
from tests.engine.test_generation import full_logprobs
from tests.pool.replay_job import committed, plan, write_prompts

pytestmark = [pytest.mark.engine, pytest.mark.long]

TOKENS = 10


@dataclass(frozen=True)
class Played:
    settings: Config
    standing: Standing
    report: RoundsReport

    def version(self, number: int) -> Corpus:
        return open_corpus(f"rounds-test-rounds@v{number}", self.settings.root)

    def student(self, number: int) -> Any:
        folder = Path(self.settings.root) / "students" / self.report.rounds[number].student
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def play(settings: Config) -> tuple[Standing, RoundsReport]:
    standing = begin(settings, "rounds-test@v1", load_prompts(list(settings.prompts)))
    while not standing.is_over:
        standing = play_round(standing, Watch())
    return standing, report_rounds(standing)


@pytest.fixture(scope="module")
def played(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The student's answers are greedy, so that they can be told from its weights."""
    folder = tmp_path_factory.mktemp("rounds")
    settings = Config.model_validate(
        {
            "name": "rounds-test",
            "root": str(folder / "data"),
            "prompts": [
                {"source": "dataset", "path": str(write_prompts(folder / "p.jsonl", 16)), "prompt": "question"}
            ],
            "teacher": {
                "model": str(tiny_model),
                "dtype": "float32",
                "sampling": {"samples": 2, "max_tokens": TOKENS},
                "engine": engine_of(max_num_seqs=16),
            },
            "filters": {"truncated": False, "missing_answer": False},
            "validation": {"fraction": 0.2},
            "student": {
                "model": {"from_teacher": {"layers": [0]}},
                "train": {"steps": 6, "batch_size": 32, "learning_rate": 3e-3},
            },
            "rounds": {
                "count": 2,
                "learning_rate": 3e-4,
                "steps": 8,
                "sampling": {"temperature": 0.0, "max_tokens": TOKENS},
                "loss": {"objective": "reverse_kl"},
            },
        }
    )
    planned = plan(settings)
    generate_missing(planned, lambda _: None)
    assemble_version(planned, lambda _: None)
    return Played(settings, *play(settings))


@pytest.mark.parametrize("number", [1, 2])
def test_the_student_of_the_round_before_wrote_what_is_scored(played: Played, number: int) -> None:
    """Greedy tokens in another framework: where the two likeliest are as good as equal, either may come."""
    student, tokens = played.student(number - 1), 0
    for row in played.version(number).table("soft_labels").to_pylist():
        logprobs = full_logprobs(student, row)
        said = np.array(row["completion_token_ids"])
        best = np.sort(logprobs, axis=1)
        close = best[:, -1] - best[:, -2] < 1e-3
        assert ((logprobs.argmax(1) == said) | close).all()
        tokens += len(said)
    assert tokens > 8 * TOKENS


@pytest.mark.parametrize("number", [1, 2])
def test_the_labels_are_the_teachers_on_the_students_tokens(played: Played, tiny_model: Path, number: int) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_model)
    version = played.version(number)
    traces = version.table("traces").to_pylist()
    for trace, row in zip(traces, version.table("soft_labels").to_pylist(), strict=True):
        expected = full_logprobs(teacher, row)
        said = row["completion_token_ids"]
        np.testing.assert_allclose(row["sampled_logprobs"], expected[np.arange(len(said)), said], atol=1e-3)
        assert (said[-1] == tokenizer.eos_token_id) == (trace["finish_reason"] == "stop")
        first = row["support_counts"][0]
        np.testing.assert_allclose(
            row["support_logprobs"][:first], expected[0][row["support_ids"][:first]], rtol=2**-4, atol=1e-3
        )


def test_every_round_lowers_its_own_loss_and_is_measured_on_the_same_rows(played: Played) -> None:
    rounds = played.report.rounds
    assert [result.round for result in rounds] == [0, 1, 2]
    assert all(result.last_loss < result.first_loss for result in rounds)  # a step sees all traces of the round
    assert len({(result.held_out.traces, result.held_out.tokens) for result in rounds}) == 1
    assert len({result.held_out.kl for result in rounds}) == 3


def test_played_again_no_engine_starts(played: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("an engine was started")

    monkeypatch.setattr("distill_data.session.TeacherPool", forbidden)
    _, again = play(played.settings)
    assert again.rounds == played.report.rounds and again.generated_traces == 0
    for folder in (Path(played.settings.root) / "traces").iterdir():
        assert set(committed(TraceStore(played.settings.root, folder.name)).values()) == {1}
