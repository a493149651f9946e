from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill_data import config, teacher_config
from distill_data.identity import (
    canonical_json,
    digest,
    prompt_id,
    sampling_seed,
    sealed,
    sequence_digest,
    teacher_id,
    trace_id,
    unit_hash,
    unsealed,
)
from distill_data.models import ModelSource
from distill_data.teacher_identity import teacher_ingredients


def test_canonical_json_does_not_depend_on_order() -> None:
    one = {"b": [1, {"y": None, "x": True}], "a": "é 🙂"}
    other = {"a": "é 🙂", "b": (1, {"x": True, "y": None})}
    assert canonical_json(one) == canonical_json(other) == '{"a":"é 🙂","b":[1,{"x":true,"y":null}]}'


def test_canonical_json_tells_kinds_and_places_apart() -> None:
    values: list[Any] = [1, "1", True, None, 1.5, [1], [[1]], {"a": 1}, {"a": {"a": 1}}, "", [], {}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest([1, 2]) != digest([2, 1])


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (print, "value is a builtin_function_or_method"),
        ({"a": [0, lambda: 1]}, r"value.a\[1\] is a function"),
        ({1, 2}, "value is a set"),
        ({"a": float("nan")}, "value.a is nan"),
        ([float("inf")], r"value\[0\] is inf"),
        ({"a": {1: 2}}, "value.a has the key 1"),
        (b"bytes", "value is a bytes"),
        (Path("x"), "value is a PosixPath"),
    ],
)
def test_what_has_no_canonical_form_is_refused(value: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        canonical_json(value)


def test_ids_stay_what_they_were() -> None:
    """Ids on people's disks: changing how they are made would orphan every trace store."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Wie geht's? 你好"}]
    assert prompt_id(messages) == "622ffd2c5b6a73a10211f935"
    assert teacher_id({"model": {"hub": "a/b", "commit": "0" * 40}, "dtype": "bfloat16"}) == "e1c1aadb9c177658"
    assert sampling_seed(0, "p", 1) == 5500706845713133335
    assert trace_id("0123456789abcdef", "p", 3) == "01234567-p-3"
    assert id_of({}) == "c584cb875dbff0db"
    assert (
        id_of(
            {
                "system_prompt": "x",
                "chat_template_kwargs": {"a": True},
                "sampling.samples": 4,
                "sampling.temperature": 0.9,
                "sampling.top_k": 5,
                "sampling.seed": 3,
            }
        )
        == "20a638657c7fd6d8"
    )


def test_a_completion_and_overrides_are_part_of_a_prompt_where_there_are_any() -> None:
    chat = [{"role": "user", "content": "q"}]
    ids = [
        prompt_id(chat),
        prompt_id(chat, "a"),
        prompt_id(chat, "b"),
        prompt_id(chat, ""),
        prompt_id(chat, None, {"temperature": 0.5}),
        prompt_id(chat, None, {"temperature": 0.6}),
        prompt_id(chat, None, {"top_p": 0.5}),
    ]
    assert len({*ids}) == len(ids)
    overrides: dict[str, Any] = {"top_k": 5, "temperature": 0.5}
    assert prompt_id(chat, None, overrides) == prompt_id(chat, None, dict(reversed(overrides.items())))


def test_a_prompt_id_is_its_text_byte_for_byte() -> None:
    def id_of(content: str, role: str = "user") -> str:
        return prompt_id([{"role": role, "content": content}])

    different = ["a", "a ", "A", "\u00e9", "e\u0301", "a\n", "\ud800"]  # composed and decomposed é; half a character
    assert len({id_of(text) for text in different} | {id_of("a", "system")}) == len(different) + 1
    assert prompt_id([{"content": "a", "role": "user", "name": "x"}]) == id_of("a")


def test_seeds_differ_between_samples_prompts_and_seeds() -> None:
    seeds = {sampling_seed(seed, prompt, sample) for seed in (0, 1) for prompt in "abc" for sample in range(200)}
    assert len(seeds) == 2 * 3 * 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_unit_hash_is_even_within_0_and_1() -> None:
    values = [unit_hash(7, str(number)) for number in range(4000)]
    assert all(0.0 <= value < 1.0 for value in values)
    tenths = [sum(int(value * 10) == tenth for value in values) for tenth in range(10)]
    assert min(tenths) > 320 and max(tenths) < 480  # 400 expected, standard deviation 19
    assert unit_hash(8, "1") != unit_hash(7, "1")


def test_sequence_digest_follows_inputs_rows_and_order() -> None:
    base = sequence_digest({"a": 1}, ["x", "y"])
    assert base == sequence_digest({"a": 1}, iter(["x", "y"]))
    others = [({"a": 2}, ["x", "y"]), ({"a": 1}, ["y", "x"]), ({"a": 1}, ["x"]), ({"a": 1}, ["xy"])]
    assert len({base, *(sequence_digest(inputs, rows) for inputs, rows in others)}) == 5


SOURCE = ModelSource("org/name", "hub", None, "a" * 40)  # a whole commit: nobody asks the hub
# Another value for every field of the teacher's sections, and whether it changes what the teacher says.
CHANGES: dict[str, tuple[Any, bool]] = {
    "model": ("elsewhere/name", False),  # its fingerprint counts, see below
    "revision": ("main", False),
    "backend": ("replay", True),
    "mode": ("score", True),
    "system_prompt": ("Be brief.", True),
    "prompt_format": ("text", True),
    "chat_template_kwargs": ({"enable_thinking": True}, True),
    "dtype": ("float32", True),
    "quantization": ("fp8", True),
    "trust_remote_code": (True, False),
    "sampling.samples": (9, False),
    "sampling.temperature": (0.9, True),
    "sampling.top_p": (0.9, True),
    "sampling.top_k": (40, True),
    "sampling.max_tokens": (9, True),
    "sampling.stop_token_ids": ([7], True),
    "sampling.seed": (9, True),
    "retry_truncated": ({"max_tokens": 999}, False),
    "soft_labels.kind": ("sampled", True),
    "soft_labels.draws": (50, False),  # another number is refused without kind: sampled, see below
    "soft_labels.preset": ("compact", True),
    "soft_labels.min_prob": (0.01, True),
    "soft_labels.max_support": (9, True),
    "soft_labels.rounding": ("float16", True),
    "reasoning.open_tag": ("<t>", False),
    "reasoning.close_tag": ("</t>", False),
    "reasoning.answer_pattern": ("x", False),
    "reasoning_parser": ("qwen3", False),
    "engine.load_seconds": (9.0, False),
    "engine.hang_seconds": (9.0, False),
    "engine.max_model_len": (99, False),
    "engine.max_num_seqs": (9, False),
    "engine.replicas": (9, False),
    "engine.tensor_parallel_size": (9, False),
    "engine.gpu_memory_utilization": (0.5, False),
    "engine.cpu_kv_cache_gib": (9, False),
    "engine.enforce_eager": (True, False),
    "engine.ray": ({"address": "head:6379", "num_gpus": 2.0, "resources": {"h200": 1.0}}, False),
    "engine.servers": ({"urls": ["http://gpu-1:8000/v1"]}, False),
    "engine.options": ({"block_size": 16}, False),
}


def id_of(changes: dict[str, Any], source: ModelSource = SOURCE) -> str:
    tree: dict[str, Any] = {"model": "org/name"}
    for path, value in changes.items():
        section, _, key = path.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    return teacher_id(teacher_ingredients(teacher_config.Teacher.model_validate(tree), source))


CLASSIFYING: dict[str, tuple[Any, bool]] = {
    "labels": ({"good": " yes", "bad": " nope"}, True),
    "template": ("{text}!", True),
    "calibrate_on": (["N/A"], False),  # is asked as any text, and divides when a version is made
}


@pytest.mark.parametrize("path", CHANGES)
def test_what_changes_a_teachers_words_changes_its_id_and_nothing_else_does(path: str) -> None:
    value, matters = CHANGES[path]
    assert (id_of({path: value}) != id_of({})) == matters


def test_no_field_of_the_teacher_is_forgotten_above() -> None:
    fields = set()
    for name, field in teacher_config.Teacher.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, config.Section):
            fields |= {f"{name}.{inner}" for inner in kind.model_fields}
        else:
            fields.add(name)
    assert fields == {*CHANGES, *CLASSIFYING}


@pytest.mark.parametrize("name", CLASSIFYING)
def test_of_a_classifying_teacher_the_words_and_the_template_are_in_the_id(name: str) -> None:
    value, matters = CLASSIFYING[name]
    classify = {"mode": "classify", "labels": {"good": " yes", "bad": " no"}, "template": "{text}?"}
    assert (id_of(classify | {name: value}) != id_of(classify)) == matters


def test_the_models_content_is_in_the_id() -> None:
    commits = [ModelSource("org/name", "hub", None, commit * 40) for commit in "ab"]
    renamed = ModelSource("org/other", "hub", None, "a" * 40)
    assert len({id_of({}, source) for source in [*commits, renamed]}) == 3


def test_a_copied_folder_is_the_same_teacher(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    sources = [ModelSource(str(folder), "folder", folder, None) for folder in (tiny_model, copy)]
    same = {id_of({"model": source.reference}, source) for source in sources}
    assert len(same) == 1
    tokenizer = copy / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|im_end|>", "<|endoftext|>", 1))
    assert id_of({}, sources[1]) not in same


def test_what_is_only_scored_does_not_depend_on_sampling() -> None:
    scored = {
        id_of({"mode": "score", path: value})
        for path, (value, _) in CHANGES.items()
        if "sampl" in path and path != "sampling.samples"
    }
    assert scored == {id_of({"mode": "score"})}
    assert "sampling" not in teacher_ingredients(teacher_config.Teacher(model="org/name", mode="score"), SOURCE)


def test_of_sampled_labels_the_draws_and_the_rounding_count() -> None:
    drawn = {"soft_labels.kind": "sampled"}
    assert id_of(drawn) == id_of({**drawn, "soft_labels.draws": 50})
    others = [{}, {"soft_labels.draws": 51}, {"soft_labels.rounding": "float16"}]
    assert len({id_of({}), *(id_of(drawn | other) for other in others)}) == 4
    kept = teacher_config.Teacher.model_validate({"model": "org/name", "soft_labels": {"kind": "sampled"}})
    told = teacher_ingredients(kept, SOURCE)["soft_labels"]
    assert told == {"kind": "sampled", "draws": 50, "rounding": "graded"}


def test_a_preset_is_only_its_values() -> None:
    balanced = {"soft_labels.min_prob": 0.001, "soft_labels.max_support": 64}
    assert id_of(balanced) == id_of({}) == id_of({"soft_labels.preset": "balanced"})
    assert id_of({"soft_labels.preset": "compact", **balanced}) == id_of({})
    source = teacher_ingredients(teacher_config.Teacher(model="org/name"), SOURCE)
    assert source["soft_labels"] == {"min_prob": 0.001, "max_support": 64}  # as before there were presets


def test_the_order_of_stop_tokens_does_not_count() -> None:
    assert id_of({"sampling.stop_token_ids": [3, 1, 3]}) == id_of({"sampling.stop_token_ids": [1, 3]})


def test_a_sealed_object_tells_when_it_was_changed() -> None:
    said = {"b": [1, 2.5, None, "\u00e9\n"], "a": {"2": True, "10": float("inf")}}
    whole = sealed(said)
    assert unsealed(whole) == said
    assert unsealed(json.loads(json.dumps(whole, indent=2, sort_keys=True))) == said
    assert unsealed(said) == said  # from before there were seals
    for changed in ({**whole, "b": [1, 2.5, None, "e"]}, {**whole, "c": 1}, {"sha256": whole["sha256"]}):
        with pytest.raises(ValueError, match="does not match the sha256"):
            unsealed(changed)
