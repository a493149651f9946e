"""Tokens drawn from a teacher's whole distribution, for sampled soft labels, inside vLLM's sampler.

Draws are systematic: one random offset per position, and D points at equal distances in the cumulated probabilities. As
with independent draws (Sparse Logit Sampling: Anshumann et al., ACL 2025) a token is met D p times in expectation, but
its count is that rounded up or down: every token with p >= 1 / D is there, and estimates vary less.
"""

from __future__ import annotations

import os
from typing import Any

from distill_data.errors import TeacherError

_BLOCK = 64


def systematic_draws(logprobs: Any, draws: int, offsets: Any) -> Any:
    """Ids of the drawn tokens, ascending: int64 tensor [N, D].

    First the block of the vocabulary that a point falls into, then the token in it: cumulating everything would cost
    seven times as much.

    Args:
        logprobs: float32 tensor [N, V], normalised over V.
        draws: D.
        offsets: float64 tensor [N, 1], uniform in [0, 1).
    """
    import torch

    rows, vocabulary = logprobs.shape
    probabilities = torch.nn.functional.pad(logprobs.exp(), (0, -vocabulary % _BLOCK)).view(rows, -1, _BLOCK)
    edges = probabilities.sum(-1, dtype=torch.float64).cumsum(1)
    points = (torch.arange(draws, device=logprobs.device) + offsets) / draws * edges[:, -1:]
    block = torch.searchsorted(edges, points, right=True).clamp_max_(edges.shape[1] - 1)
    before = edges.gather(1, (block - 1).clamp_min_(0)).masked_fill_(block == 0, 0.0)
    inside = probabilities.gather(1, block.unsqueeze(-1).expand(-1, -1, _BLOCK)).cumsum(-1, dtype=torch.float64)
    place = torch.searchsorted(inside, (points - before).unsqueeze(-1), right=True).squeeze(-1)
    return (block * _BLOCK + place.clamp_max_(_BLOCK - 1)).clamp_max_(vocabulary - 1)


def configure_draws() -> None:
    """Set what vLLM reads when it is imported: its sampler is to run in this process, as `Draws` knows it."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"


class Draws:
    """Lets vLLM's sampler hand out draws where it would hand out the likeliest tokens.

    `were_made` says whether it ever did: an engine that samples elsewhere would hand out the likeliest ones.
    """

    def __init__(self) -> None:
        from vllm.v1.sample.sampler import Sampler

        self.were_made = False
        self._generator: Any = None
        Sampler.gather_logprobs = staticmethod(self._gather)

    def check(self) -> None:
        """Raises TeacherError where the engine's sampler was not this one."""
        if not self.were_made:
            raise TeacherError(
                "this engine samples where no tokens can be drawn for soft_labels.kind: sampled: leave engine.options "
                "out, or set soft_labels.kind: support"
            )

    def _gather(self, logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
        """As `Sampler.gather_logprobs`: [token, draw 1 … draw D] and their log-probabilities; no ranks."""
        import torch
        from vllm.v1.outputs import LogprobsTensors

        self.were_made = True
        offsets = torch.rand(
            (len(logprobs), 1), dtype=torch.float64, device=logprobs.device, generator=self._own_generator(logprobs)
        )
        ids = torch.cat((token_ids.unsqueeze(-1), systematic_draws(logprobs, num_logprobs, offsets)), dim=1)
        return LogprobsTensors(ids.int(), logprobs.gather(-1, ids), torch.zeros(len(ids), dtype=torch.int64))

    def _own_generator(self, logprobs: Any) -> Any:
        """Seeded anew by every engine: vLLM seeds PyTorch's own the same each time."""
        import torch

        if self._generator is None:
            self._generator = torch.Generator(logprobs.device)
            self._generator.seed()
        return self._generator
