"""The section `rounds`: after its training the student learns from its own answers, which the teacher scores."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from distill_data.section import Section, Temperature
from distill_data.student_config import Loss, Student
from distill_data.teacher_config import Sampling, Teacher


class StudentSampling(Sampling):
    """How the student answers: as the teacher does in `teacher.sampling`, with these values. What a source's
    `sampling:` sets holds for the student too.
    """

    temperature: Temperature = 1.0
    """Sampling temperature. At 1 answers are the student's own distribution, which is what is to be learnt from."""


class RoundLoss(Loss):
    """What is minimised in a round. The tokens are the student's own, so there is no cross-entropy with them."""

    cross_entropy: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the cross-entropy on the student's own tokens. With `teachers_own`, on the teacher's too."""


class Rounds(Section):
    """The on-policy loop (Agarwal et al., 2024, "On-Policy Distillation of Language Models", GKD): in every round the
    student answers the prompts that are not held out, the teacher scores these answers by teacher forcing, they become
    a version of the corpus NAME-rounds, and the student of the round before trains on it.
    """

    count: PositiveInt
    """How many rounds follow the first training."""
    sampling: StudentSampling = StudentSampling()
    """How the student answers."""
    steps: PositiveInt | None = None
    """Optimizer steps of a round; `student.train.steps` when left out."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate of a round; `student.train.learning_rate` when left out."""
    loss: RoundLoss = RoundLoss()
    """What is minimised in a round."""
    teachers_own: bool = False
    """Train on the teacher's own answers too: those that the first training saw, scored once, are in every round's
    version beside the student's. GKD's mixture of both, with the shares that there are of each."""

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_the_count(cls, given: Any) -> Any:
        return {"count": given} if isinstance(given, int) and not isinstance(given, bool) else given

    def why_not(self, teacher: Teacher, student: Student | None) -> str | None:
        """Why these two cannot play rounds; None where they can."""
        objective, kind = self.loss.objective, teacher.soft_labels.kind
        if student is None:
            return "there is no student to learn: add a student: section, or leave rounds out"
        if teacher.mode != "generate":
            return f"follow a training on the teacher's own answers, and teacher.mode is {teacher.mode}: set generate"
        if student.tokenizer != "teacher":
            return (
                f"the teacher scores the student's tokens, and student.tokenizer is {student.tokenizer}: set "
                "student.tokenizer: teacher"
            )
        if objective in ("text", "uld"):
            return f"loss.objective is {objective}, which compares no token by token: set loss.objective: forward_kl"
        if kind == "sampled" and objective != "forward_kl":
            return (
                f"loss.objective is {objective} and teacher.soft_labels.kind sampled, which does not estimate it: set "
                "loss.objective: forward_kl"
            )
        return None
