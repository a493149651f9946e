"""Tasks of the lm-evaluation-harness, done by every entrant through transformers; what was done is kept."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill_data.errors import ConfigError, StudentError
from distill_data.evaluate_config import Evaluate
from distill_data.evaluation.entrants import Entrant
from distill_data.file_hash import file_sha256
from distill_data.identity import digest
from distill_data.models import model_fingerprint
from distill_data.parquet import place

Figures = dict[str, dict[str, float]]
"""By task and metric; a metric's standard error is `METRIC_stderr`."""


def require_harness() -> None:
    """Refuse tasks where the harness is not installed.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("lm_eval") is None:
        raise ConfigError(
            "student.evaluate.lm_eval names tasks and the lm-evaluation-harness is not installed: "
            "pip install 'distill-data[lm-eval]', or leave lm_eval out"
        )


def task_figures(entrant: Entrant, evaluate: Evaluate) -> Figures:
    """What an entrant reaches in each task; one that it did before is read from `<root>/lm_eval`.

    Raises:
        StudentError: a task is unknown, or its data set is not there.
    """
    found: Figures = {}
    for task in evaluate.lm_eval:
        file = _kept(entrant, task, evaluate.lm_eval_limit)
        if not file.is_file():
            figures = _done(entrant, task, evaluate)
            file.parent.mkdir(parents=True, exist_ok=True)
            place((json.dumps(figures, indent=2) + "\n").encode(), file)
        found |= json.loads(file.read_text(encoding="utf-8"))
    return found


def _kept(entrant: Entrant, task: str, limit: int | None) -> Path:
    """Where the figures of one task are kept: named by the model, the task and the harness."""
    what = {
        "model": model_fingerprint(entrant.source),
        "dtype": entrant.config.teacher.dtype,
        "task": file_sha256(Path(task)) if Path(task).is_file() else task,
        "limit": limit,
        "lm_eval": version("lm-eval"),
    }
    return Path(entrant.config.root) / "lm_eval" / f"{digest(what)[:16]}.json"


def _done(entrant: Entrant, task: str, evaluate: Evaluate) -> Figures:
    import torch
    from lm_eval.evaluator import simple_evaluate  # type: ignore[import-not-found]

    teacher = entrant.config.teacher
    try:
        run: Any = simple_evaluate  # its decorators hide what it takes
        done = run(
            model="hf",
            model_args={
                "pretrained": str(entrant.folder),
                "dtype": teacher.dtype,
                "trust_remote_code": teacher.trust_remote_code,
            },
            tasks=[task],
            batch_size=evaluate.batch_size,
            device="cuda" if torch.cuda.is_available() else "cpu",
            limit=evaluate.lm_eval_limit,
            log_samples=False,
        )
    except Exception as error:
        raise StudentError(
            f"the lm-evaluation-harness cannot do {task!r} with {entrant.name} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}): check its name, and that its data set is on this machine"
        ) from error
    return {name: _metrics(figures) for name, figures in done["results"].items()}


def _metrics(figures: dict[str, Any]) -> dict[str, float]:
    """The harness names them METRIC,FILTER; the filter is left out where it is `none`."""
    numbers = {name: value for name, value in figures.items() if "," in name and isinstance(value, int | float)}
    return {name.removesuffix(",none").replace(",", " "): float(value) for name, value in numbers.items()}
