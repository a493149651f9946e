"""How long the completions of a paced replay engine are said to be; see `hooks/paced.py`."""

from __future__ import annotations

import numpy as np

RATE = "DISTILL_DATA_TOKENS_PER_SECOND"  # an environment variable


def tokens_of(seed: int) -> int:
    """How long a request's completion is said to be: lognormal around 96, cut to 16 … 512."""
    return int(np.clip(np.rint(np.random.default_rng(seed).lognormal(np.log(96.0), 0.9)), 16, 512))
