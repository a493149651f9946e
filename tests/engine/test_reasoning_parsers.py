"""vLLM's own reasoning parsers, on text as the trace store holds it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import assemble_version
from distill_data.config import Config
from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.read import open_corpus
from distill_data.doctor import examine, require_ready
from distill_data.errors import ConfigError, DistillDataError, ModelError
from distill_data.reasoning import Split, Splitter
from distill_data.records import table_to_prompts
from distill_data.teacher_config import Teacher
from distill_data.teachers.vllm_reasoning import parser_identity, parser_splitter
from tests.pool.replay_job import make_config, plan, write_prompts
from tests.tiny_model import make_tokenizer
from tests.unit.corpus.conftest import make_job as make_job_fixture
from tests.unit.corpus.conftest import make_prompts, make_trace, right_or_wrong

pytestmark = pytest.mark.engine

MakeJob = Callable[..., Assembly]
TOKENS = ("<think>", "</think>", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "<|channel>", "<channel|>")
ASSISTANT = "<|im_start|>assistant\n"
make_job = make_job_fixture


def splitter(name: str, **chat_template_kwargs: Any) -> Splitter:
    teacher = Teacher(model="some/teacher", reasoning_parser=name, chat_template_kwargs=chat_template_kwargs)
    return parser_splitter(teacher, make_tokenizer(more_special_tokens=TOKENS))


@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3", "step3", "deepseek_v4"])
@pytest.mark.parametrize(
    ("completion", "suffix", "expected"),
    [
        ("<think>\nadd 1\n</think>\n\n42", ASSISTANT, Split("add 1", "42", True)),
        ("\n<think>add 1</think>42\n", ASSISTANT, Split("add 1", "42", True)),
        ("add 1\n</think>\n\n42", ASSISTANT + "<think>\n", Split("add 1", "42", True)),
        ("<think>\nadd 1\n</think>\n\n42", ASSISTANT + "<think>\n", Split("add 1", "42", True)),
        ("42", ASSISTANT + "<think>\n\n</think>\n\n", Split(None, "42", True)),
        ("<think>\n\n</think>\n\n42", ASSISTANT, Split(None, "42", True)),
        ("<think>\nadd 1\n</think>", ASSISTANT, Split("add 1", "", True)),
        ("<think>\nadd 1\n</think>\n\n", ASSISTANT, Split("add 1", "", True)),
        ("<think>\nadd 1", ASSISTANT, Split("add 1", "", False)),
        ("<think>\nadd 1\n</thi", ASSISTANT, Split("add 1\n</thi", "", False)),
        ("add 1", ASSISTANT + "<think>\n", Split("add 1", "", False)),
        ("<think>", ASSISTANT, Split("", "", False)),
        ("", ASSISTANT + "<think>\n", Split("", "", False)),
        ("42", ASSISTANT, Split("42", "", False)),  # these teachers think first, whether they say so or not
        ("思考 🙂</think>答え", ASSISTANT, Split("思考 🙂", "答え", True)),
    ],
)
def test_think_tags(name: str, completion: str, suffix: str, expected: Split) -> None:
    assert splitter(name)(completion, suffix) == expected


@pytest.mark.parametrize(
    ("name", "completion", "suffix", "expected"),
    [
        ("mistral", "[THINK]add 1[/THINK]42", "[/INST]", Split("add 1", "42", True)),
        ("mistral", "add 1[/THINK]42", "[/INST][THINK]", Split("add 1", "42", True)),
        ("mistral", "[THINK]add 1", "[/INST]", Split("add 1", "", False)),
        ("mistral", "add 1", "[/INST][THINK]", Split("add 1", "", False)),
        ("mistral", "So: [THINK]add 1", "[/INST]", Split("add 1", "", False)),
        ("mistral", "[THINK]a[/THINK]4[THINK]b", "[/INST]", Split("ab", "", False)),
        ("mistral", "42", "[/INST]", Split(None, "42", True)),
        ("granite", "Here is my thought process: a Here is my response: b", "", Split("a", "b", True)),
        ("granite", "Here's my thought process: a Here's my response: b", "", Split("a", "b", True)),
        ("granite", "Here's my thought process: a Here's", "", Split("a Here's", "", False)),
        ("granite", "a Here is my response: b", "Here is my thought process:", Split("a", "b", True)),
        ("granite", "42", "", Split(None, "42", True)),
        ("qwen3", "<think>\nuse a <tool_call> or not", "", Split("use a <tool_call> or not", "", False)),
        ("qwen3", "use a <tool_call> or not", "", Split("use a <tool_call> or not", "", False)),
        ("gemma4", "<|channel>thought\na<channel|>b", "<|turn>model\n", Split("a", "b", True)),
        ("gemma4", "<|channel>thought\na", "<|turn>model\n", Split("a", "", False)),
        ("gemma4", "a", "<|channel>thought\n", Split("a", "", False)),
        ("gemma4", "b", "<|channel>thought\n<channel|>", Split(None, "b", True)),
    ],
)
def test_other_tags(name: str, completion: str, suffix: str, expected: Split) -> None:
    assert splitter(name)(completion, suffix) == expected


def test_thinking_that_is_switched_off_is_not_looked_for() -> None:
    split = splitter("qwen3", enable_thinking=False)
    assert split("42", ASSISTANT + "<think>\n\n</think>\n\n") == Split(None, "42", True)
    assert split("42", ASSISTANT) == Split(None, "42", True)
    assert split("<think>\nadd 1", ASSISTANT) == Split("add 1", "", False)  # it thought all the same


def test_a_parser_keeps_nothing_from_one_completion_to_the_next() -> None:
    split = splitter("qwen3")
    texts = ["<think>a</think>b", "<think>a", "b", "<think>a</think><tool_call>", "<think>c</think>d"]
    assert [split(text, "") for text in texts] == [splitter("qwen3")(text, "") for text in texts]
    assert [split(text, "") for text in reversed(texts)] == [splitter("qwen3")(text, "") for text in reversed(texts)]


def test_the_kwargs_of_the_config_are_left_alone() -> None:
    teacher = Teacher(model="m", reasoning_parser="holo2")  # this parser writes its defaults into them
    split = parser_splitter(teacher, make_tokenizer(more_special_tokens=TOKENS))
    assert split("a</think>b", "") == Split("a", "b", True)
    assert teacher.chat_template_kwargs == {}


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("qwen33", ConfigError, ["has no parser 'qwen33'", "deepseek_r1", "qwen3", "granite"]),
        ("openai_gptoss", ModelError, ["'openai_gptoss'", "some/teacher"]),
        ("cohere_command3", ModelError, ["'cohere_command3'", "does not split text"]),
        ("minimax_m2_append_think", ModelError, ["names no tags"]),
        ("deepseek_v3", ModelError, ["names no tags", "thinking is off", "teacher.chat_template_kwargs"]),
        ("seed_oss", ModelError, ["has no token '</seed:think>'", "some/teacher"]),
        ("minimax_m3", ModelError, ["could not locate think start/end tokens"]),
    ],
)
def test_a_parser_that_cannot_split_is_refused_in_one_line(
    name: str, kind: type[DistillDataError], words: list[str]
) -> None:
    with pytest.raises(kind) as caught:
        splitter(name)
    message = str(caught.value)
    assert all(word in message for word in [*words, "teacher.reasoning:"]), message
    assert "\n" not in message


def test_every_parser_splits_or_is_refused() -> None:
    from vllm.reasoning import ReasoningParserManager

    splitting = set()
    for name in ReasoningParserManager.list_registered():
        try:
            split = splitter(name, thinking=True, enable_thinking=True, reasoning_effort="high")
        except ModelError:
            continue
        splitting.add(name)
        assert not split(split.tags.opening[0] + " a", "").finished, name  # pyright: ignore[reportFunctionMemberAccess]
    assert {"deepseek_r1", "deepseek_v3", "glm45", "kimi_k2", "mimo", "mistral", "qwen3", "step3"} <= splitting


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm.reasoning", None)
    with pytest.raises(ConfigError, match=r"needs vLLM on the machine that assembles .*: install"):
        splitter("qwen3")


def test_loading_a_parser_leaves_the_environment_of_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)
    splitter("qwen3")
    assert "VLLM_LOGGING_LEVEL" not in os.environ


@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3"])
def test_a_corpus_has_the_rows_that_tags_give(make_job: MakeJob, tmp_path: Path, name: str) -> None:
    prompts = make_prompts(8)
    cut = {"completion": "<think>\nadd 1, and then", "finish_reason": "stop"}
    traces = [*right_or_wrong(prompts, 3), *(make_trace(prompt, 3, **cut) for prompt in prompts)]
    sections: dict[str, Any] = {"judge": {"verifier": "exact"}}
    tags = make_job(prompts, traces, root=tmp_path / "tags", **sections)
    parser = make_job(
        prompts, traces, root=tmp_path / "parser", split=splitter(name), teacher={"reasoning_parser": name}, **sections
    )
    manifests = [assemble(job, lambda progress: None) for job in (tags, parser)]
    assert manifests[0].digest != manifests[1].digest
    assert manifests[0].dropped == manifests[1].dropped
    assert manifests[1].dropped["unfinished_thinking"] == len(prompts)
    for family in ("traces", "soft_labels"):
        for split in ("train", "validation"):
            rows = [open_corpus("sums", job.config.root).table(family, split).to_pylist() for job in (tags, parser)]
            assert rows[0] == rows[1] != []


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Config:
    (tmp_path / "root").mkdir()
    return make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 10))


def with_parser(config: Config, name: str) -> Config:
    tree = config.model_dump()
    tree["teacher"]["reasoning_parser"] = name
    return Config.model_validate(tree)


def test_naming_a_parser_makes_a_version_and_no_trace(settings: Config) -> None:
    planned = plan(settings)
    said = "Here is my thought process: add 1. Here is my response: 42"
    prompts = table_to_prompts(planned.prompts.table)
    planned.store.folder.mkdir(parents=True)
    planned.store.describe({"tokenizer": {"sha256": "ab" * 32, "vocab_size": 400, "eos_token_id": 2}})
    planned.store.commit([make_trace(prompt, sample, said) for prompt in prompts for sample in range(2)])
    parsed = with_parser(settings, "granite")
    assert len(plan(parsed).plan.missing) == 0
    made = [assemble_version(plan(config), lambda progress: None) for config in (settings, parsed, parsed)]
    assert [(manifest.version, created) for manifest, created in made] == [(1, True), (2, True), (2, False)]
    assert made[0][0].teacher_id == made[1][0].teacher_id
    rows = open_corpus(f"{settings.name}@v2", settings.root).table("traces", "train").to_pylist()
    assert {(row["thinking"], row["answer"]) for row in rows} == {("add 1.", "42")}


def test_the_doctor_finds_what_a_parser_lacks_before_anything_is_generated(settings: Config) -> None:
    lacking = with_parser(settings, "qwen3")  # the tiny model's tokenizer has no </think>
    checks = {check.name: check for check in examine(lacking)}
    assert not checks["reasoning"].ok
    assert "has no token '</think>'" in checks["reasoning"].detail
    with pytest.raises(ModelError, match="</think>"):
        require_ready(plan(lacking))
    assert {check.name: check.ok for check in examine(with_parser(settings, "granite"))}["reasoning"]
    assert "reasoning" not in {check.name for check in examine(settings)}


def test_the_identity_of_a_parser_is_its_name_and_the_version_of_vllm() -> None:
    import vllm

    assert parser_identity("qwen3") == {"name": "qwen3", "vllm": vllm.__version__.partition("+")[0]}
