"""What soft labels are beyond their columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

OnUnlabelled = Literal["refuse", "cross_entropy", "pass"]


@dataclass(frozen=True)
class LabelKind:
    """How the soft labels of a job are to be read.

    `draws` are those of sampled soft labels, None of a cut support. `unlabelled` is what a token without soft labels
    is: refused, a hard label, or passed over by the objective. A student with other tokens than its teacher can be
    compared with it by the `ranks` of probabilities, or by `nothing`.
    """

    draws: int | None = None
    unlabelled: OnUnlabelled = "refuse"
    compares: Literal["ids", "ranks", "nothing"] = "ids"


TEACHERS_OWN = LabelKind()
"""A cut support over ids that student and teacher share, at every token."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows of SOFT_LABELS_SCHEMA that a student is measured on, and how they are to be read."""

    labels: pa.Table
    kind: LabelKind = TEACHERS_OWN
