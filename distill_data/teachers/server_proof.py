"""What a server has to show before it gets requests: that it runs this model, and hands out what soft labels need."""

from __future__ import annotations

import numpy as np

from distill_data.errors import ModelError
from distill_data.teacher_config import Sampling
from distill_data.teachers.base import Completion, Request
from distill_data.teachers.completions_api import StreamedRows, generation_body
from distill_data.teachers.servers import Refused, Server, ask_server, get_json, read_stream

_COARSE = 2.0**-10  # the logits that a 16-bit head gives are multiples of this, those below 1/8 apart
_NATS_APART = 0.02  # what two runs of one request may differ by


async def prove_server(server: Server, model: str, eos: int, width: int) -> int | None:
    """Ask a server for its models and for two tokens; the length of its context, None where it does not say.

    Args:
        server: whom to ask.
        model: the name that it is to know the teacher by.
        eos: the tokenizer's, as a prompt.
        width: alternatives that are needed of every token.

    Raises:
        ModelError: what is wrong with it, and the flag that would help.
        httpx2.TransportError: it is not there.
    """
    context = _context(server, model, await get_json(server, "/models"))
    greedy = await _one_token(server, model, eos, width, temperature=0.0)
    _check_head(server, greedy.top_logprobs[0])
    hot = await _one_token(server, model, eos, width, temperature=2.0)
    if abs(float(greedy.top_logprobs[0, 0] - hot.top_logprobs[0, 0])) > _NATS_APART:
        raise ModelError(
            f"{server.url} gives log-probabilities after temperature: start it with --logprobs-mode raw_logprobs"
        )
    return context


def _context(server: Server, model: str, models: dict[str, list[dict[str, object]]]) -> int | None:
    names = {str(entry["id"]): entry for entry in models["data"]}
    if model not in names:
        raise ModelError(
            f"{server.url} has {', '.join(sorted(names))} and no {model}: if that is the teacher, set "
            "teacher.engine.servers.served_model to its name there"
        )
    length = names[model].get("max_model_len")
    return int(str(length)) if length else None


async def _one_token(server: Server, model: str, eos: int, width: int, temperature: float) -> Completion:
    request = Request("proof", [eos], 0, Sampling(temperature=temperature, max_tokens=1))
    stream = StreamedRows(width)
    try:
        return await ask_server(server, generation_body(request, model, width, 1), read_stream(request, stream))
    except Refused as refusal:
        raise ModelError(
            f"{server.url} refuses a request for one token with {width} alternatives ({refusal}): start it with "
            f"--max-logprobs {width}, or lower teacher.soft_labels.max_support"
        ) from None


def _check_head(server: Server, logprobs: np.ndarray) -> None:
    """Differences of log-probabilities are differences of logits: those of a bfloat16 head have few digits."""
    steps = (logprobs - logprobs[0]).astype(np.float64)[1:] / _COARSE
    if len(steps) > 3 and np.ptp(steps) > 1 and np.abs(steps - steps.round()).max() < 0.05:
        raise ModelError(
            f"{server.url} computes its log-probabilities from 16-bit logits, which are off by up to 1/8 nat: start it "
            """with --hf-overrides '{"head_dtype": "float32"}'"""
        )
