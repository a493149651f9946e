"""The build flow: prompts -> plan -> check -> generate -> judge -> assemble -> promote."""

from __future__ import annotations

from contextlib import ExitStack

from prefect import flow

from distill_data.build import existing_version
from distill_data.build_report import BuildPause, BuildReport, report_build, report_pause
from distill_data.config import Config
from distill_data.errors import GateError
from distill_data.judging import model_judges
from distill_data.lease import traces_in_use
from distill_data.progress import display
from distill_data.session import early_session
from distill_data.teachers.generation import NO_BUDGET, NOTHING_GENERATED, Budget
from flows.reporting import name_run, publish_build_artifacts
from flows.tasks import assemble_task, check_task, generate_task, judge_task, load_prompts_task, plan_task, promote_task


@flow(name="build", flow_run_name="build {config.name}", validate_parameters=False)
def build_corpus(
    config: Config, verbose: bool = False, budget: Budget = NO_BUDGET, retry_failed: bool = False
) -> BuildReport | BuildPause:
    """Bring the corpus up to date: generate what is missing and write a new version if anything changed.

    The teacher's engine loads while prompts are read and checked. A pause (the budget is spent, or another build of
    this teacher is at work and this one is to leave) writes no version.

    Raises:
        GateError: the version was made and is not promoted; the error holds the report.
        DistillDataError: with one line that says what to do; everything that was committed is kept.
    """
    with ExitStack() as held:
        held.enter_context(early_session(config, verbose))
        prompts = load_prompts_task(config)
        plan = plan_task(config, prompts, retry_failed)
        manifest, created, generation = existing_version(plan), False, NOTHING_GENERATED
        judging = NOTHING_GENERATED
        if manifest is None:
            held.enter_context(traces_in_use(plan.store.folder))  # until they are in a version
            display().note(
                f"{config.name}: {len(prompts.table):,} prompts, {plan.plan.wanted:,} traces wanted, "
                f"{len(plan.plan.finished):,} in the store, {len(plan.plan.missing):,} to generate"
            )
            if len(plan.plan.missing):
                check_task(plan)
                plan, generation = generate_task(plan, budget, verbose)
            if generation.paused is None and model_judges(config):
                judging = judge_task(plan, generation, budget, verbose)
            if (generation.paused or judging.paused) is not None:
                return report_pause(plan, generation, judging)
            manifest, created = assemble_task(plan)
    report = report_build(plan, generation, manifest, created, judging)
    name_run(f"build {report.corpus}")
    try:
        report = promote_task(plan, report, manifest)
    except GateError as failed:
        publish_build_artifacts(failed.report, manifest)
        raise
    publish_build_artifacts(report, manifest)
    return report
