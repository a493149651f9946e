"""A faster exact top-k over the vocabulary for vLLM's CPU sampler.

`torch.topk` of 64 among 49,152 costs 4 % of the decoding time of a 135M teacher on two cores. The k largest values lie
in the k blocks with the largest maxima, so two small top-k's over block maxima and candidates give the same values.
"""

from __future__ import annotations

from typing import Any

_BLOCK = 64


def block_top_k(logprobs: Any, k: int) -> tuple[Any, Any]:
    """Values and indices of the k largest in each row, largest first, as `torch.topk` gives them (ties may differ).

    Args:
        logprobs: float tensor [N, V].
        k: how many; where k blocks would cover most of a row, or V is no multiple of the block, it is `torch.topk`.
    """
    import torch

    rows, width = logprobs.shape
    if width % _BLOCK or 4 * k * _BLOCK > 3 * width:
        return torch.topk(logprobs, k, dim=-1)
    blocks = logprobs.view(rows, width // _BLOCK, _BLOCK)
    best = blocks.amax(-1).topk(k, dim=-1, sorted=False).indices
    candidates = blocks.gather(1, best.unsqueeze(-1).expand(-1, -1, _BLOCK)).view(rows, k * _BLOCK)
    values, where = candidates.topk(k, dim=-1)
    return values, best.gather(1, where // _BLOCK) * _BLOCK + where % _BLOCK


def use_fast_top_k() -> None:
    """Let vLLM's sampler gather log-probabilities by `block_top_k`; the rank of the sampled token is left at 0."""
    import torch
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.sample.sampler import Sampler

    def gather_logprobs(logprobs: Any, num_logprobs: int, token_ids: Any) -> Any:
        values, indices = block_top_k(logprobs, num_logprobs)
        token_ids = token_ids.unsqueeze(-1)
        ids = torch.cat((token_ids, indices), dim=1).to(torch.int32)
        ranks = torch.zeros(len(ids), dtype=torch.int64)
        return LogprobsTensors(ids, torch.cat((logprobs.gather(-1, token_ids), values), dim=1), ranks)

    Sampler.gather_logprobs = staticmethod(gather_logprobs)
