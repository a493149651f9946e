"""Labels' log-probabilities from vLLM: for one-token labels a single request, `max_tokens=1`, that looks them up.

Further tokens of longer labels are asked about once the first answer is there: by then the prompt is in the prefix
cache, which a request with `prompt_logprobs` would not read. Such requests never share a batch with requests for the
likeliest tokens: a teacher that classifies does nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill_data.errors import TeacherError
from distill_data.teachers.base import Completion, Request, RequestRefused
from distill_data.teachers.label_tokens import LabelLookup
from distill_data.teachers.logprob_rows import LogprobRows


@dataclass
class _Asked:
    """A request and what came back so far, by number of the question."""

    request: Request
    lookup: LabelLookup
    answers: dict[int, np.ndarray] = field(default_factory=dict)
    ended: str | None = None  # as what else than an answer


class LabelQuestions:
    """Asks a vLLM engine about labels; requests are finished when all their questions are answered."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._requests: Any = engine.output_processor.request_states
        self._asked: dict[str, _Asked] = {}
        self._lookups: dict[tuple[tuple[int, ...], ...], LabelLookup] = {}

    def add(self, request: Request) -> None:
        """Ask about the first tokens.

        Raises:
            RequestRefused: vLLM will not take it.
        """
        labels = tuple(map(tuple, request.label_token_ids or []))
        if labels not in self._lookups:
            self._lookups[labels] = LabelLookup([list(tokens) for tokens in labels])
        asked = _Asked(request, self._lookups[labels])
        self._ask(asked, 0)
        self._asked[request.request_id] = asked

    def finished(self, outputs: list[Any]) -> list[Completion]:
        """Take in what the engine finished; returned are the requests that this completes."""
        completions = []
        for output in outputs:
            name, _, number = output.request_id.rpartition("/")
            if (asked := self._asked.get(name)) is None:
                continue  # another of its questions ended without an answer
            self._take(asked, int(number), output)
            if number == "0" and asked.ended is None:
                for further in range(1, len(asked.lookup.questions)):
                    self._ask(asked, further)
            if asked.ended is not None or len(asked.answers) == len(asked.lookup.questions):
                del self._asked[name]
                completions.append(_completion(asked))
        return completions

    def _ask(self, asked: _Asked, number: int) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind

        beginning, tokens = asked.lookup.questions[number]
        how = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=tokens,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        prompt = {"prompt_token_ids": [*asked.request.prompt_token_ids, *beginning]}
        try:
            name = self._engine.add_request(f"{asked.request.request_id}/{number}", prompt, how)
        except (VLLMValidationError, ValueError) as error:
            raise RequestRefused("request_failed", " ".join(str(error).split())) from error
        self._requests[name].logprobs_processor = LogprobRows(len(tokens))

    def _take(self, asked: _Asked, number: int, output: Any) -> None:
        reason = output.outputs[0].finish_reason
        if reason not in ("stop", "length"):
            asked.ended = reason
            return
        tokens = asked.lookup.questions[number][1]
        ids, logprobs = output.outputs[0].logprobs.first_row()
        if ids[1 : len(tokens) + 1].tolist() != tokens:
            raise TeacherError(
                f"vLLM gave log-probabilities of other tokens than the {len(tokens)} that it was asked about: this "
                "version of vLLM is not supported, install the pinned one"
            )
        asked.answers[number] = logprobs[1 : len(tokens) + 1]


def _completion(asked: _Asked) -> Completion:
    """All labels' tokens one after the other, or nothing where a question was not answered."""
    token_ids = asked.lookup.token_ids if asked.ended is None else np.empty(0, np.int32)
    answers = [asked.answers[number] for number in sorted(asked.answers)]
    logprobs = asked.lookup.flat(answers) if asked.ended is None else np.empty(0, np.float32)
    none = np.empty((len(token_ids), 0), np.float32)
    return Completion(asked.request.request_id, token_ids, asked.ended or "stop", none.astype(np.int32), none, logprobs)
