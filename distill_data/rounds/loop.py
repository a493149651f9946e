"""One round after the other: answer, score, assemble, train, measure. A step that is done is found, not done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distill_data.build import BuildPlan, assemble_version, generate_missing
from distill_data.config import Config
from distill_data.corpus.assemble import AssemblyProgress
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.errors import StudentError
from distill_data.lease import traces_in_use
from distill_data.prompts import PromptSet
from distill_data.rounds.answers import trained_on
from distill_data.rounds.curve import RoundResult, RoundsReport, result_of, write_curve
from distill_data.rounds.jobs import plan_answers, plan_next_student, plan_scores
from distill_data.rounds_config import Rounds
from distill_data.session import end_early_session
from distill_data.student.job import StudentPlan, evaluate, plan_student, report_student, train
from distill_data.student.result import EvaluationResult
from distill_data.teachers.generation import NO_BUDGET, NOTHING_GENERATED, Budget, GenerationProgress, GenerationReport

if TYPE_CHECKING:
    from distill_data.student.trainer import TrainProgress


@dataclass(frozen=True)
class Watch:
    """Who is shown how far the steps are: `generation` is asked for a listener by a stage's name."""

    generation: Callable[[str], Callable[[GenerationProgress], None]] = lambda stage: lambda now: None
    assembly: Callable[[AssemblyProgress], None] = lambda now: None
    training: Callable[[TrainProgress], None] = lambda now: None
    say: Callable[[str], object] = lambda line: None
    verbose: bool = False


@dataclass(frozen=True)
class Standing:
    """Where the loop stands: the student of the last round, what every round came to, what generation took.

    `asked` are the prompts that the student answers; `first` is the version that all students are measured on.
    """

    settings: Config
    rounds: Rounds
    asked: PromptSet
    first: Corpus
    student: StudentPlan
    results: tuple[RoundResult, ...]
    generated: GenerationReport = NOTHING_GENERATED

    @property
    def number(self) -> int:
        """Of the last round that is done; 0 is the training on the teacher's own answers."""
        return self.results[-1].round

    @property
    def is_over(self) -> bool:
        """Whether no round is left, or the budget is spent."""
        return self.number >= self.rounds.count or self.generated.paused is not None


def begin(settings: Config, reference: str, prompts: PromptSet) -> Standing:
    """The loop behind round 0, the training on a version of the teacher's own answers, which is done here if it is not.

    Raises:
        StudentError: the version holds nothing out to measure on, or the student does not fit it.
    """
    first = open_corpus(reference, settings.root)
    if settings.rounds is None or "validation" not in first.splits:
        raise StudentError(
            f"{first.reference} holds nothing out to measure rounds on: set validation.fraction above 0 and build again"
        )
    student = plan_student(settings, first)
    _train_and_measure(student, first, Watch())
    results = (result_of(0, student, first, 0),)
    return Standing(settings, settings.rounds, trained_on(prompts, first), first, student, results)


def play_round(standing: Standing, watch: Watch, budget: Budget = NO_BUDGET) -> Standing:
    """Play the next round; where the budget ends it, the same call goes on from there later.

    Raises:
        TeacherError: no worker can be kept alive; every answer and score that was committed is kept.
        StudentError: the student cannot be trained.
    """
    settings, rounds, number = standing.settings, standing.rounds, standing.number + 1
    answers = plan_answers(settings, number, standing.student, standing.asked)
    watch.say(f"round {number} of {rounds.count}: {len(answers.plan.missing):,} answers of the student are missing")
    answers, standing = _generated(answers, standing, watch, budget, f"answer {number}")
    if standing.generated.paused is not None:
        return standing
    scores = plan_scores(settings, number, answers, standing.first if rounds.teachers_own else None)
    with traces_in_use(scores.store.folder):  # until they are in a version
        scores, standing = _generated(scores, standing, watch, budget, f"score {number}")
        if standing.generated.paused is not None:
            return standing
        manifest, _ = assemble_version(scores, watch.assembly)
    corpus = open_corpus(f"{manifest.name}@v{manifest.version}", settings.root)
    student = plan_next_student(settings, standing.student, corpus)
    _train_and_measure(student, standing.first, watch)
    result = result_of(number, student, standing.first, answers.plan.wanted)
    return replace(standing, student=student, results=(*standing.results, result))


def report_rounds(standing: Standing) -> RoundsReport:
    """What the rounds came to; rounds.json in the last student's folder has the same once none is left."""
    before = report_student(plan_student(standing.settings, standing.first), created=False).before
    report = RoundsReport(
        corpus=standing.first.reference,
        path=str(standing.student.folder),
        begun=before if isinstance(before, EvaluationResult) else None,
        rounds=standing.results,
        generated_traces=standing.generated.traces,
        generated_tokens=standing.generated.tokens,
        paused=standing.generated.paused,
    )
    if report.paused is None:
        write_curve(report)
    return report


def _generated(
    build: BuildPlan, standing: Standing, watch: Watch, budget: Budget, stage: str
) -> tuple[BuildPlan, Standing]:
    """Have what is missing of a build, or as much as the budget leaves; nothing is started where nothing is missing."""
    if not len(build.plan.missing):
        return build, standing
    spent = standing.generated
    if (limit := budget.reached(spent.tokens, spent.seconds)) is not None:
        return build, replace(standing, generated=replace(spent, paused=limit))
    end_early_session(unless=build.store.teacher_id)
    listener, left = watch.generation(stage), budget.after(spent)
    build, report = generate_missing(build, listener, budget=left, say=watch.say, verbose=watch.verbose)
    total = spent + report
    reason = None if report.paused is None else budget.reached(total.tokens, total.seconds) or report.paused
    return build, replace(standing, generated=replace(total, paused=reason))


def _train_and_measure(student: StudentPlan, first: Corpus, watch: Watch) -> None:
    """Train, and measure on the held-out rows of the first version, unless that is done."""
    if not student.is_trained:
        train(student, watch.training)
    measured = replace(student, corpus=first)
    if not measured.is_evaluated:
        evaluate(measured)
