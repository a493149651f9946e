"""What a real engine is told to do otherwise: stop at some ids, leave more room, think, pause.

Its model counts: token n is followed by n + 1.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from distill_data.build import generate_missing
from distill_data.config import Config
from distill_data.records import Prompt
from distill_data.teachers.generation import NO_BUDGET, Budget, GenerationReport
from distill_data.teachers.vllm_top_k import use_fast_top_k
from tests.engine.conftest import SUPPORT, WIDE, engine_of, exact_settings
from tests.engine.test_scoring import check_against_transformers
from tests.pool.replay_job import committed, plan, wanted

pytestmark = [pytest.mark.engine, pytest.mark.long]

STOP, SHORT_STOP = "^", "Y"
FIRST, MORE = 12, 24  # max_tokens, and that of retry_truncated
SHORT = {"M": "a source of its own: M", "W": "a source of its own: W"}
LETTERS = {letter: f"Go on from {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


@dataclass(frozen=True)
class Build:
    """A build that ended, and what the store held then."""

    report: GenerationReport
    missing: int  # before it
    rows: list[dict[str, Any]]
    written: Counter[tuple[str, int]]
    wanted: Counter[tuple[str, int]]

    def of(self, text: str) -> dict[str, Any]:
        """The row of the prompt with this text; its source's overrides are part of the prompt's id."""
        ids = {Prompt([{"role": "user", "content": text}], "").prompt_id, short_id(text)}
        (row,) = [row for row in self.rows if row["prompt_id"] in ids]
        return row


def short_id(text: str) -> str:
    return Prompt([{"role": "user", "content": text}], "", sampling=short_sampling()).prompt_id


def short_sampling() -> dict[str, Any]:
    return {"max_tokens": 3, "stop_token_ids": [token(SHORT_STOP)]}


def token(letter: str) -> int:
    """The id of an ASCII letter: after three special tokens, printable characters come in order."""
    return ord(letter) - ord("!") + 3


def count(letter: str, stop: str, max_tokens: int) -> tuple[list[int], str]:
    """What the counting model says after a letter, and why it stops."""
    ids = list(range(token(letter) + 1, token(stop) + 1))
    return (ids, "stop") if len(ids) <= max_tokens else (ids[:max_tokens], "length")


def counting_settings(model: Path, root: Path, **teacher: Any) -> Config:
    """Two sources; the second samples otherwise."""
    sources = []
    for name, texts in (("letters", LETTERS), ("short", SHORT)):
        file = root / f"{name}.jsonl"
        file.write_text("\n".join(json.dumps({"text": text}) for text in texts.values()))
        sources.append({"source": "dataset", "path": str(file), "prompt": "text"})
    sources[1]["sampling"] = short_sampling()
    sampling = {"temperature": 0.0, "max_tokens": FIRST, "stop_token_ids": [token(STOP)]}
    thinking = {"enable_thinking": True}
    engine = engine_of(max_num_seqs=1)
    return exact_settings(
        model, root, sources, sampling=sampling, engine=engine, chat_template_kwargs=thinking, **teacher
    )


def build(settings: Config, budget: Budget = NO_BUDGET) -> Build:
    planned = plan(settings)
    _, report = generate_missing(planned, lambda progress: None, budget=budget)
    done = plan(settings).plan
    rows = planned.store.read(done.finished).to_pylist()
    return Build(report, len(planned.plan.missing), rows, committed(planned.store), wanted(planned))


@pytest.fixture(scope="module")
def story(counting: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Build]:
    """One trace store, build by build, and another one that had everything set from the start."""
    root, fresh = tmp_path_factory.mktemp("counted"), tmp_path_factory.mktemp("fresh")
    settings = counting_settings(counting, root)
    with_room = counting_settings(counting, root, retry_truncated={"max_tokens": MORE})
    return {
        "paused": build(settings, Budget(max_tokens=1)),
        "resumed": build(settings),
        "retried": build(with_room),
        "again": build(with_room),
        "fresh": build(counting_settings(counting, fresh, retry_truncated={"max_tokens": MORE})),
    }


def test_a_budget_pauses_and_the_next_run_does_the_rest(story: dict[str, Build]) -> None:
    paused, resumed = story["paused"], story["resumed"]
    assert paused.report.paused == "--max-tokens 1 is reached"
    assert 0 < len(paused.rows) < len(paused.wanted)
    assert paused.report.traces == len(paused.rows) == len(paused.wanted) - resumed.missing
    assert paused.report.tokens == sum(row["completion_tokens"] for row in paused.rows)
    assert resumed.report.paused is None
    assert resumed.report.traces == resumed.missing
    assert resumed.written == resumed.wanted  # each exactly once
    kept = {row["prompt_id"]: row["content_digest"] for row in paused.rows}
    assert kept.items() <= {row["prompt_id"]: row["content_digest"] for row in resumed.rows}.items()


def test_a_stop_token_ends_a_trace_is_learned_and_not_written(story: dict[str, Build]) -> None:
    reasons = Counter()
    for letter, text in LETTERS.items():
        row = story["resumed"].of(text)
        assert (row["completion_token_ids"], row["finish_reason"]) == count(letter, STOP, FIRST)
        reasons[row["finish_reason"]] += 1
        last = ord(letter) + row["completion_tokens"]
        assert row["completion"] == "".join(map(chr, range(ord(letter) + 1, last + 1))).removesuffix(STOP)
    assert reasons == {"stop": 9, "length": 17}


def test_what_a_source_samples_otherwise_reaches_the_engine(story: dict[str, Build]) -> None:
    for letter, text in SHORT.items():
        row = story["resumed"].of(text)
        assert (row["completion_token_ids"], row["finish_reason"]) == count(letter, SHORT_STOP, 3)
    assert {story["resumed"].of(text)["finish_reason"] for text in SHORT.values()} == {"stop", "length"}


def test_arguments_of_the_chat_template_reach_it(story: dict[str, Build], counting: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(counting)
    for text in (*LETTERS.values(), *SHORT.values()):
        row = story["resumed"].of(text)
        rendered = f"<|im_start|>{text}<|im_end|><|im_start|><think>{text[-1]}"
        assert tokenizer.decode(row["prompt_token_ids"], clean_up_tokenization_spaces=False) == rendered
        assert row["prompt_suffix"] == rendered[-64:]


def test_only_what_max_tokens_cut_is_made_again_with_more_room(story: dict[str, Build]) -> None:
    before, after = story["resumed"], story["retried"]
    cut = {row["prompt_id"] for row in before.rows if row["finish_reason"] == "length"}
    assert after.missing == after.report.traces == len(cut) == 18
    assert after.written - before.written == Counter({(prompt, 0): 1 for prompt in cut})
    for letter, text in LETTERS.items():
        row = after.of(text)
        assert (row["completion_token_ids"], row["finish_reason"]) == count(letter, STOP, MORE)
    for letter, text in SHORT.items():  # its own stop token, with the new room
        row = after.of(text)
        assert (row["completion_token_ids"], row["finish_reason"]) == count(letter, SHORT_STOP, MORE)


def test_what_outgrew_the_second_room_too_stays_as_it_is(story: dict[str, Build]) -> None:
    assert Counter(row["finish_reason"] for row in story["retried"].rows) == {"stop": 23, "length": 5}
    again = story["again"]
    assert (again.missing, again.report.traces, again.report.load_seconds) == (0, 0, 0.0)
    assert again.written == story["retried"].written


def test_one_build_makes_traces_and_makes_the_cut_ones_again(story: dict[str, Build]) -> None:
    fresh, retried = story["fresh"], story["retried"]
    assert {row["prompt_id"]: row["completion_token_ids"] for row in fresh.rows} == {
        row["prompt_id"]: row["completion_token_ids"] for row in retried.rows
    }
    assert fresh.written == retried.written
    assert (fresh.missing, fresh.report.traces) == (len(fresh.wanted), sum(fresh.written.values()))
    assert fresh.report.restarts == 0


def test_labels_found_block_by_block_are_the_teachers_distribution(story: dict[str, Build], counting: Path) -> None:
    rows = story["retried"].rows
    assert check_against_transformers(counting, rows) == SUPPORT * sum(row["completion_tokens"] for row in rows)


def test_vllms_sampler_gathers_the_same_rows_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample.sampler import Sampler

    logprobs = torch.randn(5, WIDE).log_softmax(-1)
    arguments = (logprobs, SUPPORT, torch.arange(5))
    whole = Sampler().gather_logprobs(*arguments)
    monkeypatch.setattr(Sampler, "gather_logprobs", Sampler.__dict__["gather_logprobs"])  # to come back afterwards
    use_fast_top_k()
    monkeypatch.setattr(torch, "topk", None)  # it searches the vocabulary as a whole
    by_blocks = Sampler().gather_logprobs(*arguments)
    for before, now in zip(whole[:2], by_blocks[:2], strict=True):
        assert before.dtype == now.dtype
        assert torch.equal(before, now)
