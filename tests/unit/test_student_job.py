from __future__ import annotations

import json
import shutil
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from distill_data.build import assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import ModelError, StudentError
from distill_data.models import load_tokenizer, resolve_model
from distill_data.report.student import student_summary
from distill_data.student.check import check_student
from distill_data.student.job import StudentPlan, evaluate, plan_student, report_student, train
from distill_data.student.labels import StudentLabels
from distill_data.student.result import EvaluationResult
from distill_data.student_config import Student, Train
from distill_data.teacher_config import Teacher
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts
from tests.unit.student.other_tokenizers import make_metaspace_tokenizer

LLAMA = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2,
}  # fmt: skip
STUDENT: dict[str, Any] = {"model": {"from_config": LLAMA}, "train": {"steps": 4, "batch_size": 4}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Config:
    """A config whose corpus replayed@v1 is there, and without held-out rows replayed@v2."""
    folder = tmp_path_factory.mktemp("job")
    settings = make_config(folder / "root", tiny_model, write_prompts(folder / "p.jsonl", 12), student=STUDENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill_data.session.TeacherPool", InlinePool)
        for fraction in (0.2, 0.0):
            validation = settings.validation.model_copy(update={"fraction": fraction})
            planned = plan(settings.model_copy(update={"validation": validation}))
            generate_missing(planned, lambda _: None)
            assemble_version(planned, lambda *_: None)
    return settings


def corpus(config: Config, version: int = 1) -> Corpus:
    return open_corpus(f"replayed@v{version}", config.root)


def planned(config: Config, version: int = 1, **changes: Any) -> StudentPlan:
    student = {**STUDENT, **changes}
    return plan_student(Config.model_validate(config.model_dump() | {"student": student}), corpus(config, version))


def whole_and_half(job: StudentPlan) -> list[str]:
    """Names beside the student's folder, locks left out."""
    return [entry.name for entry in job.folder.parent.iterdir() if entry.suffix != ".lock"]


def test_what_decides_the_weights_decides_the_name(config: Config) -> None:
    base = planned(config).folder
    assert base == Path(config.root) / "students" / base.name
    assert base.name.startswith("replayed-v1-")
    same = [
        planned(config, evaluate={"max_traces": 3}).folder,
        planned(config, train={**STUDENT["train"], "batching": "padded"}).folder,
    ]
    others = [
        planned(config, train={**STUDENT["train"], "seed": 1}).folder,
        planned(config, train={**STUDENT["train"], "batching": "packed"}).folder,
        planned(config, train={**STUDENT["train"], "loss": {"kl": 0.5}}).folder,
        planned(config, model={"from_config": LLAMA | {"hidden_size": 32}}).folder,
        planned(config, 2).folder,
    ]
    assert set(same) == {base}
    assert len({base, *others}) == len(others) + 1


def test_a_config_without_a_student_is_refused(config: Config) -> None:
    with pytest.raises(StudentError, match="the config has no student: section"):
        plan_student(config.model_copy(update={"student": None}), corpus(config))


def test_a_student_is_trained_once_measured_and_reported(config: Config) -> None:
    job = planned(config)
    with pytest.raises(StudentError, match="is not there: run `distill-data train` first"):
        evaluate(job)
    steps: list[int] = []
    train(job, lambda now: steps.append(now.point.step))
    assert job.is_trained and not job.is_evaluated
    assert steps[-1] == 4
    assert whole_and_half(job) == [job.folder.name]
    unmeasured = report_student(job, created=True)
    assert (unmeasured.steps, unmeasured.created, unmeasured.before, unmeasured.after) == (4, True, None, None)
    evaluate(job)
    report = report_student(planned(config), created=False)
    assert report.before is not None and report.after is not None
    assert report.before.traces == report.after.traces == len(corpus(config).table("traces", "validation"))
    assert report.before.kl != report.after.kl
    assert not planned(config, evaluate={"max_traces": 1}).is_evaluated
    assert report.traces == len(corpus(config).table("traces"))
    assert report.corpus == "replayed@v1"
    card = (job.folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "transformers" and "base_model" not in header
    assert "in the corpus replayed@v1 (digest `" in card and "| steps | 4 |" in card
    assert str(job.folder.parent) not in card


def test_a_training_that_fails_leaves_nothing(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: Any) -> None:
        raise StudentError("out of memory: make batches smaller")

    monkeypatch.setattr("distill_data.student.training.train_student", crash)
    job = planned(config, train={**STUDENT["train"], "seed": 9})
    with pytest.raises(StudentError, match="out of memory"):
        train(job, lambda _: None)
    assert not job.is_trained
    assert not [name for name in whole_and_half(job) if name.startswith(".")]


def test_a_second_trainer_finds_the_student_trained(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Path] = []

    def slow(train_job: Any, on_step: Any) -> None:
        started.append(train_job.output)
        time.sleep(0.3)
        (train_job.output / "training.json").write_text("{}")

    monkeypatch.setattr("distill_data.student.training.train_student", slow)
    monkeypatch.setattr("distill_data.student.card.write_student_card", lambda plan, folder: None)
    job = planned(config, train={**STUDENT["train"], "seed": 11})
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(train, job, lambda _: None) for _ in range(2)]:
            done.result()
    assert len(started) == 1
    assert job.is_trained


def test_what_a_killed_training_left_is_given_to_the_next_one(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []

    def quick(train_job: Any, on_step: Any) -> None:
        found.extend(entry.name for entry in train_job.output.iterdir())
        (train_job.output / "training.json").write_text("{}")

    monkeypatch.setattr("distill_data.student.training.train_student", quick)
    monkeypatch.setattr("distill_data.student.card.write_student_card", lambda plan, folder: None)
    job = planned(config, train={**STUDENT["train"], "seed": 12})
    for name, file in ((job.folder.name, "model.safetensors"), (f".{job.folder.name}.unfinished", "metrics.jsonl")):
        half = job.folder.with_name(name)
        half.mkdir(parents=True)
        (half / file).write_text("half")
    train(job, lambda _: None)
    assert found == ["metrics.jsonl"]
    assert sorted(entry.name for entry in job.folder.iterdir()) == ["corpus.json", "metrics.jsonl", "training.json"]
    assert not job.folder.with_name(f".{job.folder.name}.unfinished").exists()


def test_thinking_is_no_part_of_what_is_learnt_where_the_config_says_so(config: Config) -> None:
    """The replay teacher closes its thoughts with no token; any one that it says will do."""
    said = corpus(config).table("soft_labels", "train")["completion_token_ids"].to_pylist()
    close = load_tokenizer(resolve_model(config.teacher.model)).convert_ids_to_tokens(said[0][1])
    reasoning = config.teacher.reasoning.model_copy(update={"close_tag": close})
    teacher = config.teacher.model_copy(update={"reasoning": reasoning})
    tokens = {}
    for how in ("mask", "drop", "train"):
        job = planned(config, train={**STUDENT["train"], "thinking": how, "seed": 15, "batch_size": 8})
        job = StudentPlan(job.config.model_copy(update={"teacher": teacher}), job.student, job.corpus, job.folder)
        train(job, lambda _: None)
        tokens[how] = report_student(job, created=True).tokens
    assert tokens["drop"] < tokens["mask"] == tokens["train"]


def test_how_a_training_is_run_is_no_part_of_the_students_name(config: Config) -> None:
    plain = planned(config).folder.name
    run = {"checkpoint_every": 3, "gradient_checkpointing": True, "tensorboard": True}
    assert planned(config, train={**STUDENT["train"], **run}).folder.name == plain
    assert planned(config, train={**STUDENT["train"], "lora": {}}).folder.name != plain
    stopped = {**STUDENT["train"], "early_stopping": {"every": 1}}
    names = {planned(config, train=stopped, evaluate={"max_traces": most}).folder.name for most in (1, 2)}
    assert len(names | {plain}) == 3


def test_the_untrained_student_is_gone_before_the_trained_one_comes(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distill_data.student import model

    job = planned(config, train={**STUDENT["train"], "seed": 13})
    train(job, lambda _: None)
    load_student, load_saved_student = model.load_student, model.load_saved_student
    untrained: list[Any] = []

    def load(*arguments: Any) -> Any:
        loaded = load_student(*arguments)
        untrained.append(weakref.ref(loaded))
        return loaded

    def load_saved(*arguments: Any, **options: Any) -> Any:
        assert [reference() for reference in untrained] == [None]
        return load_saved_student(*arguments, **options)

    monkeypatch.setattr(model, "load_student", load)
    monkeypatch.setattr(model, "load_saved_student", load_saved)
    evaluate(job)
    assert job.is_evaluated


def test_a_model_is_checked_by_its_config_alone(
    config: Config, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", build)
    source = resolve_model(str(tiny_model))
    tokenizer, teacher = load_tokenizer(source), Teacher(model=str(tiny_model))
    stored = json.loads((tiny_model / "config.json").read_text())
    learns = "; the teacher's tokenizer: learns from soft labels (forward_kl)"
    expected = f"vocabulary of {stored['vocab_size']} for {len(tokenizer)} tokens{learns}"
    assert check_student(Student(model=str(tiny_model)), tokenizer, source, teacher).endswith(expected)
    assert check_student(Student.model_validate(STUDENT), tokenizer, source, teacher).endswith(learns)
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    (copy / "config.json").write_text(json.dumps(stored | {"vocab_size": 9}))
    with pytest.raises(StudentError, match="the student has 9 token ids"):
        check_student(Student(model=str(copy)), tokenizer, source, teacher)
    (copy / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="is a t5, no causal language model"):
        check_student(Student(model=str(copy)), tokenizer, source, teacher)


@pytest.mark.parametrize(
    ("train_section", "own", "teachers"),
    [
        ({}, None, "soft labels (forward_kl)"),
        ({"loss": {"objective": "jsd"}}, None, "soft labels (jsd)"),
        ({"loss": {"kl": 0.0, "cross_entropy": 1.0}}, None, "the teacher's text"),
        ({"loss": {"objective": "uld"}}, "sorted probabilities (uld)", "sorted probabilities (uld)"),
        ({"loss": {"objective": "text"}}, "the teacher's text", "the teacher's text"),
        ({"loss": {"objective": "text"}, "learns": "reference"}, "the sources' references", "the sources' references"),
    ],
)
def test_the_preflight_says_what_is_learnt_in_whose_tokens(
    train_section: dict[str, Any], own: str | None, teachers: str, tiny_model: Path, tmp_path: Path
) -> None:
    """`own` is None where only the teacher's tokens will do."""
    make_metaspace_tokenizer().save_pretrained(tmp_path)
    source, teacher = resolve_model(str(tiny_model)), Teacher(model=str(tiny_model))
    tokenizer = load_tokenizer(source)
    shared = Student.model_validate({**STUDENT, "train": train_section})
    said = check_student(shared, tokenizer, source, teacher)
    assert said.endswith(f"; the teacher's tokenizer: learns from {teachers}")
    apart = shared.model_copy(update={"tokenizer": str(tmp_path)})
    if own is None:
        with pytest.raises(StudentError, match="compares distributions over the same ids"):
            check_student(apart, tokenizer, source, teacher)
    else:
        said = check_student(apart, tokenizer, source, teacher)
        assert said.endswith(f"; a tokenizer of its own: learns from {own}")


def test_nothing_held_out_is_nothing_to_measure(config: Config) -> None:
    job = planned(config, 2)
    assert not job.has_held_out
    train(job, lambda _: None)
    with pytest.raises(StudentError, match=r"replayed@v2 holds nothing out: set validation\.fraction above 0"):
        evaluate(job)


def test_a_teacher_with_another_tokenizer_is_refused(config: Config, tmp_path: Path) -> None:
    from tests.tiny_model import make_tiny_model, make_tokenizer

    other = make_tiny_model(tmp_path / "other")
    make_tokenizer(vocab_size=300).save_pretrained(other)
    teacher = config.teacher.model_copy(update={"model": str(other)})
    job = plan_student(config.model_copy(update={"teacher": teacher}), corpus(config))
    fresh = StudentPlan(job.config, job.student, job.corpus, tmp_path / "students" / "x")
    with pytest.raises(StudentError, match="was made with another tokenizer than that of"):
        train(fresh, lambda _: None)


def test_a_batching_that_is_not_set_is_no_part_of_the_name() -> None:
    """Students that were trained before there was a choice are found by their names."""
    assert "batching" not in Train().model_dump(mode="json")
    assert Train(batching="packed").model_dump()["batching"] == "packed"
    assert Train.model_validate(Train().model_dump()) == Train()


def test_training_reads_the_corpus_from_a_mapped_file(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path | None] = []
    mapped = Corpus.mapped

    def watch(self: Corpus, family: str, split: str, folder: Path | None = None, *change: Any) -> Any:
        seen.append(folder)
        return mapped(self, family, split, folder, *change)

    monkeypatch.setattr(Corpus, "mapped", watch)
    job = planned(config, train={**STUDENT["train"], "seed": 14})
    train(job, lambda _: None)
    (folder,) = seen
    assert folder is not None and folder.parent == job.folder.parent  # on the disk that students are on


@pytest.mark.parametrize("objective", ["uld", "text"])
def test_a_student_with_a_tokenizer_of_its_own_learns(config: Config, tmp_path: Path, objective: str) -> None:
    make_metaspace_tokenizer().save_pretrained(tmp_path / "own")
    train_section = STUDENT["train"] | {"steps": 60, "learning_rate": 5e-3, "loss": {"objective": objective}}
    changes: dict[str, Any] = {"tokenizer": str(tmp_path / "own"), "train": train_section}
    job = planned(config, **changes)
    steps: list[float] = []
    train(job, lambda progress: steps.append(progress.point.loss))
    evaluate(job)
    report = report_student(job, created=True)
    assert isinstance(report.before, EvaluationResult) and isinstance(report.after, EvaluationResult)
    assert report.after.cross_entropy < 0.8 * report.before.cross_entropy
    assert report.after.kl is None and report.after.top1_agreement is None
    if objective == "uld":
        assert report.before.uld is not None and report.after.uld is not None
        assert report.after.uld < report.before.uld
    else:
        assert report.after.uld is None
    assert len(AutoTokenizer.from_pretrained(job.folder)) == len(make_metaspace_tokenizer())
    assert job.folder != planned(config, train=train_section).folder
    assert "of its own" in student_summary(report)
    card = (job.folder / "README.md").read_text()
    assert "KL" not in card and "soft labels" not in card
    sorted_probabilities = "| distance between sorted probabilities in training, first and last step |" in card
    assert sorted_probabilities == (objective == "uld")
    assert ("| cross-entropy in training, first and last step |" in card) == (objective == "text")
    assert f"the text {'and the sorted probabilities ' if objective == 'uld' else ''}of `" in card


CARDS = {
    "forward_kl": ({}, "the soft labels of `", "KL to the teacher"),
    "baseline": ({"kl": 0.0, "cross_entropy": 1.0}, "the text of `", "cross-entropy"),
    "renormalised_kl": ({"temperature": 2.0}, "the soft labels of `", "its support alone, at temperature 2,"),
    "reverse_kl": ({}, "the soft labels of `", "reverse KL to the teacher"),
    "jsd": ({"beta": 0.25}, "the soft labels of `", "Jensen-Shannon divergence from the teacher, beta 0.25,"),
}


@pytest.mark.parametrize("name", CARDS)
def test_a_card_names_what_was_learnt_and_minimised(config: Config, name: str) -> None:
    more, learnt, figure = CARDS[name]
    loss = more | ({} if name == "baseline" else {"objective": name})
    job = planned(config, train={"steps": 2, "batch_size": 4, "seed": 21, "loss": loss})
    train(job, lambda _: None)
    card = (job.folder / "README.md").read_text()
    assert f"trained on\n{learnt}" in card and "from its teacher, mistakes and all" in card
    (line,) = [line for line in card.splitlines() if "first and last step" in line]
    curve = json.loads((job.folder / "training.json").read_text())["loss_curve"]
    key = "cross_entropy" if name == "baseline" else "kl"
    assert figure in line and line.endswith(f"| {curve[0][key]:.3f}, {curve[-1][key]:.3f} nats |")


def test_a_thought_that_does_not_close_with_one_token_is_refused_before_anything_is_paid_for(
    config: Config, tiny_model: Path
) -> None:
    source = resolve_model(str(tiny_model))
    student = Student.model_validate(STUDENT | {"train": {"thinking": "drop"}})
    with pytest.raises(StudentError, match=r"closes its thoughts with one token.* set thinking: train"):
        check_student(student, load_tokenizer(source), source, config.teacher)


def test_layers_of_another_teacher_are_another_student(config: Config, tmp_path: Path) -> None:
    other = shutil.copytree(config.teacher.model, tmp_path / "other")
    written = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(written | {"rms_norm_eps": 1e-3}))
    layers = {"model": {"from_teacher": {"layers": [0]}}}
    names = {
        plan_student(
            Config.model_validate(config.model_dump() | {"student": layers, "teacher": teacher}), corpus(config)
        ).folder
        for teacher in (config.teacher.model_dump(), config.teacher.model_dump() | {"model": str(other)})
    }
    assert len(names) == 2


def test_references_behind_an_open_thought_close_it_first(config: Config, tmp_path: Path) -> None:
    own = make_metaspace_tokenizer()
    own.chat_template = str(own.chat_template) + "{% if add_generation_prompt %}{{ '<think>\\n' }}{% endif %}"
    own.save_pretrained(tmp_path / "opening")
    train = {"learns": "reference", "loss": {"objective": "text"}}
    student = STUDENT | {"tokenizer": str(tmp_path / "opening"), "train": train}
    settings = Config.model_validate(config.model_dump() | {"student": student})
    assert settings.student is not None
    labels = StudentLabels(corpus(config), settings.student, settings.teacher)
    row = labels.train(tmp_path).slice(0, 1).to_pylist()[0]
    assert labels.tokenizer.decode(row["prompt_token_ids"]).endswith("<think>\n")
    reference = corpus(config).table("traces")["reference"][0].as_py()
    assert labels.tokenizer.decode(row["completion_token_ids"][:-1]) == f"</think>\n\n{reference}"


def test_the_card_of_a_student_of_references_names_no_teacher(config: Config) -> None:
    job = planned(config, train={"steps": 2, "batch_size": 4, "learns": "reference", "loss": {"objective": "text"}})
    train(job, lambda _: None)
    card = (job.folder / "README.md").read_text()
    assert "trained on\nthe sources' own references to the prompts of the corpus replayed@v1" in card
    assert "its teacher" not in card and "KL" not in card and "soft labels" not in card
    assert "| loss | 1.0 x cross-entropy |" in card


def test_another_tokenizer_gives_another_name_though_its_folder_is_called_the_same(
    config: Config, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"tokenizer": str(tmp_path), "train": STUDENT["train"] | {"loss": {"objective": "text"}}}
    make_metaspace_tokenizer().save_pretrained(tmp_path)
    first = planned(config, **changes).folder
    make_metaspace_tokenizer(320).save_pretrained(tmp_path)
    assert planned(config, **changes).folder != first
