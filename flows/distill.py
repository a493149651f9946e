"""The parent flow: build the corpus, publish it, train the student, evaluate it, play rounds."""

from __future__ import annotations

from prefect import flow

from distill_data.build_report import BuildPause, is_promoted
from distill_data.config import Config
from distill_data.report.run import RunReport
from distill_data.teachers.generation import NO_BUDGET, Budget
from flows.build import build_corpus
from flows.publish import publish_corpus
from flows.reporting import name_run
from flows.rounds import play_rounds
from flows.train import train_student


@flow(name="distill", flow_run_name="distill {config.name}", validate_parameters=False)
def distill(
    config: Config,
    verbose: bool = False,
    budget: Budget = NO_BUDGET,
    retry_failed: bool = False,
    train: bool = True,
) -> RunReport:
    """Do whatever the config asks for: prompts -> corpus -> hub, student -> evaluation -> rounds.

    Without `train` no student is trained. A version that is not promoted goes no further.

    Raises:
        GateError: a gate failed.
        DistillDataError: with one line that says what to do; what was finished is kept.
    """
    build = build_corpus(config, verbose, budget, retry_failed)
    if isinstance(build, BuildPause) or not is_promoted(build):
        return RunReport(build, None)
    published = None if config.publish is None else publish_corpus(config.root, build.corpus, config.publish)
    student = None if config.student is None or not train else train_student(config, build.corpus)
    rounds = None
    if config.rounds is not None and train:
        rounds = play_rounds(config, build.corpus, verbose, budget.after(build.spent))
    name_run(f"distill {build.corpus}")
    return RunReport(build, student, published, rounds)
