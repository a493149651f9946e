"""The comparison flow: build the corpus, train its student every way and with every seed, compare."""

from __future__ import annotations

from prefect import flow

from distill_data.build_report import BuildPause
from distill_data.comparison.arms import comparable_student, trainings
from distill_data.comparison.findings import Comparison, findings, write_findings
from distill_data.comparison.page import write_comparison_page
from distill_data.config import Config
from distill_data.corpus.read import open_corpus
from distill_data.progress import display
from distill_data.report.comparison import comparison_summary
from flows.build import build_corpus
from flows.reporting import name_run, publish_summary
from flows.train import train_task


@flow(name="compare", flow_run_name="compare {config.name}", validate_parameters=False)
def compare(config: Config, reference: str | None, verbose: bool = False) -> Comparison | BuildPause:
    """Train the config's student with and without the teacher's distributions, and say what they bought.

    On the version `reference`, or on the one that the config builds. What is trained already is not trained again.

    Raises:
        DistillDataError: with one line that says what to do; finished students are kept.
    """
    comparable_student(config)  # before anything is built
    if reference is None:
        build = build_corpus(config, verbose)
        if isinstance(build, BuildPause):
            return build
        reference = build.corpus
    jobs = trainings(config, open_corpus(reference, config.root))
    for number, job in enumerate(jobs, 1):
        display().note(f"training {number} of {len(jobs)}: {job.arm}, seed {job.seed}")
        if not job.plan.is_trained:
            train_task(job.plan)
    found = findings(jobs)
    write_findings(found)
    write_comparison_page(found)
    name_run(f"compare {found.corpus}")
    publish_summary(found.corpus, "comparison", comparison_summary(found))
    return found
