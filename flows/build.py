"""The build flow: prompts -> plan -> check -> generate -> assemble."""

from __future__ import annotations

from prefect import flow

from distill_data.build import BuildReport, existing_version, report_build
from distill_data.config import Config
from distill_data.progress import display
from distill_data.teachers.pool import NOTHING_GENERATED
from flows.reporting import name_run, publish_build_artifacts
from flows.tasks import assemble_task, check_task, generate_task, load_prompts_task, plan_task


@flow(name="build", flow_run_name="build {config.name}", validate_parameters=False)
def build_corpus(config: Config, verbose: bool = False) -> BuildReport:
    """Bring the corpus up to date: generate what is missing and write a new version if anything changed.

    Raises:
        DistillDataError: with one line that says what to do; everything that was committed is kept.
    """
    prompts = load_prompts_task(config)
    plan = plan_task(config, prompts)
    manifest, created, generation = existing_version(plan), False, NOTHING_GENERATED
    if manifest is None:
        display().note(
            f"{config.name}: {len(prompts.table):,} prompts, {plan.plan.wanted:,} traces wanted, "
            f"{len(plan.plan.finished):,} in the store, {len(plan.plan.missing):,} to generate"
        )
        if len(plan.plan.missing):
            check_task(plan)
            generation = generate_task(plan, verbose)
        manifest, created = assemble_task(plan)
    report = report_build(plan, generation, manifest, created)
    name_run(f"build {report.corpus}")
    publish_build_artifacts(report)
    return report
