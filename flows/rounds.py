"""The rounds flow: the student answers, the teacher scores, the student trains on; a task per round."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from distill_data.config import Config
from distill_data.progress import display
from distill_data.rounds import RoundsReport, Standing, Watch, begin, play_round, report_rounds, rounds_summary
from distill_data.teachers.generation import NO_BUDGET, Budget
from flows.reporting import name_run, publish_summary, start_progress
from flows.tasks import ShownProgress, load_prompts_task, show_assembly
from flows.train import show_training


@task(name="round", cache_policy=NO_CACHE)
def round_task(standing: Standing, budget: Budget, verbose: bool) -> Standing:
    """Answer, score, assemble, train and measure, each unless it is done."""
    watch = Watch(
        generation=lambda stage: ShownProgress(start_progress(stage), stage),
        assembly=show_assembly,
        training=show_training,
        say=display().note,
        verbose=verbose,
    )
    return play_round(standing, watch, budget)


@flow(name="rounds", flow_run_name="rounds {config.name}", validate_parameters=False)
def play_rounds(config: Config, reference: str, verbose: bool = False, budget: Budget = NO_BUDGET) -> RoundsReport:
    """Play the config's rounds behind the training on a version.

    Raises:
        DistillDataError: with one line that says what to do; what was finished is kept.
    """
    standing = begin(config, reference, load_prompts_task(config))
    while not standing.is_over:
        standing = round_task(standing, budget, verbose)
    report = report_rounds(standing)
    name_run(f"rounds {report.corpus}")
    publish_summary(report.corpus, "rounds", rounds_summary(report))
    return report
