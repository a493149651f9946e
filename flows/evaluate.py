"""The evaluation flow: teacher, student and baselines on held-out prompts and held-out traces."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.evaluation.answers import Answers, judge_answers, plan_answers
from distill_data.evaluation.asked import asked_prompts
from distill_data.evaluation.classifier import ClassifierEvaluation, classifier_findings, write_classifier_findings
from distill_data.evaluation.classifier_page import write_classifier_page
from distill_data.evaluation.cost import Cost, timed, weights_cost
from distill_data.evaluation.entrants import Entrant, entrants, has_the_corpus_tokens
from distill_data.evaluation.findings import Evaluation, Measured, findings, write_findings
from distill_data.evaluation.harness import require_harness, task_figures
from distill_data.evaluation.held_out import Likelihood, held_out_labels, measure
from distill_data.evaluation.page import write_evaluation_page
from distill_data.evaluation.table import evaluation_summary
from distill_data.judging import model_judges
from distill_data.progress import display
from distill_data.prompts import PromptSet
from distill_data.report.student import classifier_summary
from distill_data.student.job import StudentPlan, plan_student, report_student
from distill_data.teachers.generation import NO_BUDGET, NOTHING_GENERATED
from flows.reporting import name_run, publish_summary
from flows.tasks import check_task, generate_task, judge_task
from flows.train import evaluate_task


@task(name="answer", cache_policy=NO_CACHE)
def answer_task(entrant: Entrant, prompts: PromptSet, verbose: bool) -> Answers:
    """Have an entrant answer what it did not yet, and judge it."""
    build = plan_answers(entrant, prompts)
    if len(build.plan.missing):
        display().note(f"{entrant.name}: {len(build.plan.missing):,} of {build.plan.wanted:,} answers to generate")
        check_task(build)
        build, _ = generate_task(build, NO_BUDGET, verbose)
    if model_judges(entrant.config):
        judge_task(build, NOTHING_GENERATED, NO_BUDGET, verbose)
    return judge_answers(build)


@task(name="time", cache_policy=NO_CACHE)
def time_task(entrant: Entrant, prompts: PromptSet, seconds: float, verbose: bool) -> Cost:
    """Time an entrant's engine."""
    display().note(f"{entrant.name}: timed for {seconds:g} s")
    return timed(weights_cost(entrant), entrant, prompts, seconds, verbose=verbose)


@task(name="held-out traces", cache_policy=NO_CACHE)
def likelihoods_task(models: list[Entrant], plan: StudentPlan, notes: list[str]) -> dict[str, Likelihood]:
    """Measure everyone who has the corpus' tokens on the held-out traces."""
    rows = held_out_labels(plan)
    if rows is None:
        notes.append("no NLL or KL: the student's tokens are not the teacher's")
        return {}
    found = {}
    for one in models:
        if has_the_corpus_tokens(one, plan):
            found[one.name] = measure(one, rows, plan)
        else:
            notes.append(f"no NLL or KL of {one.name}: its tokens are not the teacher's")
    return found


@flow(name="evaluate", flow_run_name="evaluate {config.name}", validate_parameters=False)
def evaluate_student(config: Config, reference: str, verbose: bool = False) -> Evaluation:
    """Compare the config's trained student with its teacher and with baselines on a corpus version's held-out prompts.

    Raises:
        StudentError: it is not trained yet, or the version holds nothing out.
        DistillDataError: with one line that says what to do; answers and verdicts are kept.
    """
    plan = plan_student(config, open_corpus(reference, config.root))
    settings = plan.student.evaluate
    if settings.lm_eval:
        require_harness()
    if not plan.is_evaluated:
        evaluate_task(plan)
    models = entrants(plan)
    answers, costs = {}, {one.name: weights_cost(one) for one in models}
    prompts, notes = asked_prompts(plan)
    if prompts is not None:
        answers = {one.name: answer_task(one, prompts, verbose) for one in models}
        if settings.speed_seconds:
            costs = {one.name: time_task(one, prompts, settings.speed_seconds, verbose) for one in models}
    likelihoods = likelihoods_task(models, plan, notes)
    measured = [
        Measured(one, answers.get(one.name), likelihoods.get(one.name), costs[one.name], task_figures(one, settings))
        for one in models
    ]
    found = findings(plan, report_student(plan, created=False), measured, notes)
    write_findings(found)
    write_evaluation_page(found)
    name_run(f"evaluate {plan.folder.name}")
    publish_summary(plan.folder.name, "evaluation", evaluation_summary(found))
    return found


@flow(name="evaluate", flow_run_name="evaluate {config.name}", validate_parameters=False)
def evaluate_classifier(config: Config, reference: str) -> ClassifierEvaluation:
    """Compare the config's trained classifier with its teacher on a corpus version's held-out texts.

    Raises:
        StudentError: it is not trained yet, or the version holds nothing out.
    """
    plan = plan_student(config, open_corpus(reference, config.root))
    if not plan.is_evaluated:
        evaluate_task(plan)
    found = classifier_findings(plan, report_student(plan, created=False))
    write_classifier_findings(found)
    write_classifier_page(found)
    name_run(f"evaluate {plan.folder.name}")
    publish_summary(plan.folder.name, "evaluation", classifier_summary(found))
    return found
