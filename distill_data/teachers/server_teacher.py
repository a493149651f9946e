"""A teacher that runs on servers: the same requests and completions as of an engine here, over HTTP.

One thread talks to the servers; the worker's own takes what is finished.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from queue import Empty, SimpleQueue
from typing import Any

import httpx2
import numpy as np
import orjson

from distill_data import teacher_config
from distill_data.errors import ModelError
from distill_data.models import ModelSource, load_tokenizer, local_model_folder
from distill_data.teachers.base import Completion, Request, check_ids
from distill_data.teachers.completions_api import (
    StreamedRows,
    generation_body,
    label_body,
    label_logprobs,
    scored_completion,
    scoring_body,
)
from distill_data.teachers.label_tokens import LabelLookup
from distill_data.teachers.server_proof import prove_server
from distill_data.teachers.servers import Refused, Server, ServerFleet, read_stream

STEP_SECONDS = 0.2


class ServerTeacher:
    """See `base.Teacher`; of the model only tokenizer and config are read here.

    Raises:
        ConfigError, ModelError, TeacherError: the servers are not there or not such as the teacher needs.
    """

    def __init__(self, source: ModelSource, teacher: teacher_config.Teacher) -> None:
        assert teacher.engine.servers is not None
        self.tokenizer = load_tokenizer(source, trust_remote_code=teacher.trust_remote_code)
        self.vocab_size = _vocabulary_size(source, teacher.trust_remote_code)
        self.max_model_len = teacher.engine.max_model_len or 0  # the servers' own when left out
        self._teacher = teacher
        self._model = teacher.engine.servers.served_model or teacher.model
        self._width = min(teacher.soft_labels.most_kept, self.vocab_size)
        self._done: SimpleQueue[Completion | Exception] = SimpleQueue()
        self._streams: dict[str, StreamedRows] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True, name="servers").start()
        self._fleet = ServerFleet(teacher.engine.servers, teacher.engine.hang_seconds, self._prove)
        asyncio.run_coroutine_threadsafe(self._fleet.open(), self._loop).result()

    @property
    def servers_up(self) -> int:
        """How many servers answer now."""
        return self._fleet.up

    def add(self, request: Request) -> None:
        """Send a request; see `base.Teacher.add`."""
        check_ids(request.token_ids, self.vocab_size)
        asyncio.run_coroutine_threadsafe(self._serve(request), self._loop)

    def step(self) -> list[Completion]:
        """What finished meanwhile; see `base.Teacher.step`."""
        finished = []
        try:
            item = self._done.get(timeout=STEP_SECONDS)
            while True:
                if isinstance(item, Exception):
                    raise item
                finished.append(item)
                item = self._done.get_nowait()
        except Empty:
            return finished

    def tokens_in_flight(self) -> int:
        """Tokens that came so far for running requests; see `base.Teacher.tokens_in_flight`."""
        return sum(stream.tokens for stream in list(self._streams.values()))

    async def _serve(self, request: Request) -> None:
        found: Completion | Exception
        try:
            found = await self._answer(request)
        except Refused as refusal:
            nothing = StreamedRows(self._width)
            nothing.finish_reason = f"refused: {refusal}"
            found = nothing.completion(request)
        except Exception as error:
            found = error
        self._streams.pop(request.request_id, None)
        self._done.put(found)

    def _answer(self, request: Request) -> Awaitable[Completion]:
        if request.label_token_ids is not None:
            return self._labels(request, request.label_token_ids)
        if request.scored_token_ids is not None:
            return self._scored(request)
        return self._generated(request)

    async def _generated(self, request: Request) -> Completion:
        stream = self._streams[request.request_id] = StreamedRows(self._width)
        room = self.max_model_len - len(request.prompt_token_ids)
        body = generation_body(request, self._model, self._width, room)
        completion: Completion = await self._fleet.ask(body, read_stream(request, stream))
        check_ids([0, *completion.token_ids.tolist()], self.vocab_size)
        return completion

    async def _scored(self, request: Request) -> Completion:
        choice = await self._fleet.ask(scoring_body(request, self._model, self._width), first_choice)
        return scored_completion(request, choice, self._width)

    async def _labels(self, request: Request, labels: list[list[int]]) -> Completion:
        lookup = LabelLookup(labels)

        async def ask(beginning: tuple[int, ...], tokens: list[int]) -> np.ndarray:
            body = label_body([*request.prompt_token_ids, *beginning], self._model, tokens)
            return label_logprobs(await self._fleet.ask(body, first_choice), tokens)

        first, *others = lookup.questions  # by the time of the others the prompt is in the server's prefix cache
        answers = [await ask(*first), *await asyncio.gather(*(ask(*question) for question in others))]
        none = np.empty((len(lookup.token_ids), 0), np.float32)
        return Completion(
            request.request_id, lookup.token_ids, "stop", none.astype(np.int32), none, lookup.flat(answers)
        )

    async def _prove(self, server: Server) -> None:
        context = await prove_server(server, self._model, self.tokenizer.eos_token_id, self._width)
        known = [length for length in (context, self.max_model_len) if length]
        if not known:
            raise ModelError(f"{server.url} does not say how long its context is: set teacher.engine.max_model_len")
        self.max_model_len = min(known)


async def first_choice(response: httpx2.Response) -> dict[str, Any]:
    """The choice of an answer that is not streamed."""
    await response.aread()
    return orjson.loads(response.content)["choices"][0]


def _vocabulary_size(source: ModelSource, trust_remote_code: bool) -> int:
    from transformers import AutoConfig

    folder = local_model_folder(source, trust_remote_code=trust_remote_code)
    return int(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code).get_text_config().vocab_size)
