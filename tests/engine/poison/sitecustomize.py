"""Makes vLLM's engine die of some prompts, in every Python that starts with this folder in PYTHONPATH.

POISON (JSON) maps a token id to how the engine ends once a prompt with it is in flight: `kill`, `raise` or `hang`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import time
from importlib.abc import MetaPathFinder
from typing import Any

ENGINE = "vllm.v1.engine.llm_engine"


class Poisoner(MetaPathFinder):
    """Has the engine's module imported as ever, and changes its class."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != ENGINE:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            poison(module.LLMEngine, {int(token): how for token, how in json.loads(os.environ["POISON"]).items()})

        spec.loader.exec_module = exec_module
        return spec


def poison(engine: Any, ends: dict[int, str]) -> None:
    """Let the second step with a poisonous prompt in flight be the engine's last; of several the first one counts."""
    add_request, step = engine.add_request, engine.step
    in_flight: list[str] = []
    steps: list[int] = []

    def add(self: Any, request_id: str, prompt: Any, *arguments: Any) -> Any:
        in_flight.extend(ends[token] for token in ends if token in prompt["prompt_token_ids"])
        return add_request(self, request_id, prompt, *arguments)

    def step_or_die(self: Any) -> Any:
        if in_flight:
            steps.append(1)
            if len(steps) == 2:
                die(in_flight[0])
        return step(self)

    engine.add_request, engine.step = add, step_or_die


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(3600)
    from vllm.v1.engine.exceptions import EngineDeadError

    raise EngineDeadError()


sys.meta_path.insert(0, Poisoner())
