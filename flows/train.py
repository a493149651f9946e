"""The student flow: train on a corpus version, measure on its held-out rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.progress import display
from distill_data.report.student import student_summary
from distill_data.student.job import StudentPlan, StudentReport, evaluate, plan_student, report_student, train
from flows.reporting import name_run, publish_summary

if TYPE_CHECKING:
    from distill_data.student.trainer import TrainProgress


@task(name="train", cache_policy=NO_CACHE)
def train_task(plan: StudentPlan) -> None:
    """Train the student, unless it is there."""
    train(plan, show_training)


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate_task(plan: StudentPlan) -> None:
    """Measure the student on held-out rows, unless that is done."""
    evaluate(plan)


def show_training(now: TrainProgress) -> None:
    """Show where training is."""
    display().update("train", now.point.step, now.steps, f"loss {now.point.loss:.3f}")


@flow(name="train", flow_run_name="train {config.name}", validate_parameters=False)
def train_student(config: Config, reference: str) -> StudentReport:
    """Train and measure the config's student on a corpus version.

    Raises:
        StudentError: the corpus and the student do not fit together.
    """
    plan = plan_student(config, open_corpus(reference, config.root))
    created = not plan.is_trained
    if created:
        train_task(plan)
    if plan.has_held_out and not plan.is_evaluated:
        evaluate_task(plan)
    report = report_student(plan, created)
    name_run(f"train {report.name}")
    publish_summary(report.name, "student", student_summary(report))
    return report
