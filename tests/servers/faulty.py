"""A server that counts, for faults that a real one does not have on demand: token n is followed by n + 1."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, Response, request
from werkzeug.serving import make_server

CONTEXT = 1 << 16
COUNT_TO = 100  # then comes EOS


@dataclass
class CountingServer:
    """`faults` are taken one a request: a status such as `429`, `told`, `cut`, `slow` or `hang`; then it is well."""

    model: str
    eos: int
    port: int
    faults: list[str] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)  # what it answers otherwise than `vllm serve` would
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> CountingServer:
        self._server = make_server("127.0.0.1", self.port, self._app(), threaded=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _app(self) -> Flask:
        app = Flask("counting")

        @app.get("/v1/models")
        def models() -> dict[str, Any]:
            entry = {"id": self.model, "max_model_len": CONTEXT} | self.names.get("entry", {})
            return {"data": [entry]}

        @app.post("/v1/completions")
        def completions() -> Any:
            body = request.get_json()
            self.keys.append(request.headers.get("Authorization"))
            real = body["prompt"] != [self.eos]  # a proof is never faulty
            self.asked += [body] if real else []
            fault = self.faults.pop(0) if real and self.faults else ""
            if fault.isdigit():
                headers = {"Retry-After": "0"} if fault in ("429", "503") else {}
                return {"error": {"message": f"fault {fault}"}}, int(fault), headers
            time.sleep(0.3 if fault == "slow" else 0)
            return Response(self._stream(body, fault), mimetype="text/event-stream")

        return app

    def _stream(self, body: dict[str, Any], fault: str) -> Iterator[str]:
        token = body["prompt"][-1]
        for place in range(body["max_tokens"]):
            token = self.eos if token >= COUNT_TO else token + 1
            if place == 2 and fault == "told":
                yield f"data: {json.dumps({'error': {'message': 'out of memory', 'code': 500}})}\n\n"
                return
            if place == 2 and fault == "cut":
                return
            if place == 2 and fault == "hang":
                time.sleep(30)
            ended = "stop" if token == self.eos else "length" if place == body["max_tokens"] - 1 else None
            yield f"data: {json.dumps({'choices': [self._choice(token, body, ended)]})}\n\n"
            if ended:
                break
        yield "data: [DONE]\n\n"

    def _choice(self, token: int, body: dict[str, Any], ended: str | None) -> dict[str, Any]:
        tops = {f"token_id:{(token + step) % COUNT_TO}": -0.3 - 1.01 * step for step in range(body["logprobs"])}
        logprobs = {"tokens": [f"token_id:{token}"], "token_logprobs": [-0.3], "top_logprobs": [tops]}
        choice = {"index": 0, "text": "\u2028", "finish_reason": ended, "token_ids": [token], "logprobs": logprobs}
        return choice | self.names.get("choice", {})
