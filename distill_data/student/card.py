"""The model card of a student: README.md in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_data.corpus.write import public_model_name
from distill_data.student_config import Loss
from distill_data.templates import templates

if TYPE_CHECKING:
    from distill_data.student.job import StudentPlan

CARD_NAME = "README.md"
_DIVERGENCES = {
    "forward_kl": "KL to the teacher",
    "renormalised_kl": "KL to the teacher over its support alone, at temperature {loss.temperature:g},",
    "reverse_kl": "reverse KL to the teacher",
    "jsd": "generalised Jensen-Shannon divergence from the teacher, beta {loss.beta:g},",
}


def write_student_card(plan: StudentPlan, folder: Path) -> None:
    """Write README.md into the folder of a student that is trained."""
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    name = "classifier_card.md.jinja" if plan.student.task == "classification" else "card.md.jinja"
    template = templates(Path(__file__).parent, escape=False).get_template(name)
    train, curve = plan.student.train, training["loss_curve"]
    figure, key, unit = _figure(train.loss)
    card = template.render(
        name=plan.folder.name,
        base=_base(plan),
        teacher=public_model_name(plan.corpus.manifest.config["teacher"]["model"]),
        corpus=plan.corpus.reference,
        labels=plan.corpus.labels,
        digest=plan.corpus.manifest.digest,
        learns=train.learns,
        loss={"objective": train.loss.objective} | train.loss.model_dump(),
        figure=f"{figure} in training, first and last step | {curve[0][key]:.3f}, {curve[-1][key]:.3f}{unit}",
        training=training,
    )
    (folder / CARD_NAME).write_text(card, encoding="utf-8")


def _figure(loss: Loss) -> tuple[str, str, str]:
    """What the loss curve has of what was minimised: its name, its key there and its unit."""
    if loss.kl == 0:
        return "cross-entropy", "cross_entropy", " nats"
    if loss.objective == "uld":
        return "distance between sorted probabilities", "kl", ""
    return _DIVERGENCES[loss.objective].format(loss=loss), "kl", " nats"


def _base(plan: StudentPlan) -> Any:
    """The model that the student was begun with, without a path of this machine; None for random weights."""
    model = plan.student.model
    if isinstance(model, str):
        return public_model_name(model)
    return public_model_name(plan.config.teacher.model) if model.from_teacher is not None else None
