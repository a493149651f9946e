"""What a training or an evaluation tells of its student."""

from __future__ import annotations

from distill_data.evaluation.classifier import NO_RIGHT_LABELS, ClassifierEvaluation
from distill_data.evaluation.table import difference, spread
from distill_data.report.lines import field
from distill_data.student.job import StudentReport
from distill_data.student.result import ClassifierResult, EvaluationResult


def student_summary(report: StudentReport) -> str:
    """A student's figures, a line each."""
    state = f"trained {report.steps} steps in {report.seconds:.0f} s" if report.created else "up to date: nothing to do"
    lines = [
        f"student {report.name} is {state}",
        field("size", f"{report.parameters:,} parameters"),
        field("loss", f"{report.first_loss:.3f} -> {report.last_loss:.3f}"),
    ]
    before, after = report.before, report.after
    if isinstance(before, ClassifierResult) and isinstance(after, ClassifierResult):
        lines += _classifier_lines(before, after)
    elif isinstance(before, EvaluationResult) and isinstance(after, EvaluationResult):
        lines += [
            field("held out", f"{after.traces:,} traces, {after.tokens:,} tokens, never trained on"),
            *_against_teacher(before, after),
            field("entropy", _cross_entropies(before, after)),
        ]
    lines.append(field("folder", report.path))
    return "\n".join(lines)


def classifier_summary(found: ClassifierEvaluation) -> str:
    """The same of a classifier, with how sure its accuracy is, and the difference to its teacher's."""
    lines = [student_summary(found.student)]
    if found.difference is None:
        lines.append(field("95 %", NO_RIGHT_LABELS))
    else:
        lines += [
            field("95 %", f"accuracy {spread(found.accuracy)}, the teacher's {spread(found.teacher_accuracy)}"),
            field("paired", f"student less teacher: {difference(found.difference)}"),
        ]
    return "\n".join([*lines, field("page", found.page), field("figures", found.path)])


def _classifier_lines(before: ClassifierResult, after: ClassifierResult) -> list[str]:
    """How good a classifier is, against its teacher and where there are right labels."""
    lines = [
        field("held out", f"{after.traces:,} texts, never trained on; {after.judged:,} with a right label"),
        field("KL", f"{before.kl:.3f} -> {after.kl:.3f} nats to the teacher's distribution over labels"),
        field("agreement", f"{before.agreement:.1%} -> {after.agreement:.1%} with the teacher's likeliest label"),
    ]
    for name, shown in (("accuracy", ".1%"), ("log_loss", ".3f"), ("calibration_error", ".3f")):
        first, last, teachers = (getattr(*of) for of in ((before, name), (after, name), (after, f"teacher_{name}")))
        if last is not None:
            said = f"{first:{shown}} -> {last:{shown}} (the teacher itself: {teachers:{shown}})"
            lines.append(field({"calibration_error": "ECE"}.get(name, name.replace("_", " ")), said))
    return lines


def _against_teacher(before: EvaluationResult, after: EvaluationResult) -> list[str]:
    """How far from the teacher's distributions; nothing of a student that learns from text alone."""
    if before.uld is not None and after.uld is not None:
        told = f"{before.uld:.3f} -> {after.uld:.3f} between sorted probabilities, a mean over the student's tokens"
        return [field("ULD", told)]
    if before.kl is None or after.kl is None:
        return []
    return [
        field("KL", f"{before.kl:.3f} -> {after.kl:.3f} nats per token to the teacher's distribution"),
        field("top-1", f"{before.top1_agreement:.1%} -> {after.top1_agreement:.1%} agreement with the teacher"),
    ]


def _cross_entropies(before: EvaluationResult, after: EvaluationResult) -> str:
    teachers = after.teacher_cross_entropy
    beside = " of its own" if teachers is None else f" (the teacher itself: {teachers:.3f})"
    return f"cross-entropy {before.cross_entropy:.3f} -> {after.cross_entropy:.3f} nats per token{beside}"
