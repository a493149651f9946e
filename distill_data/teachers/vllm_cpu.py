"""What vLLM needs where it runs on a CPU."""

from __future__ import annotations

import os
from typing import Any

from distill_data import teacher_config


def configure_cpu(engine: teacher_config.Engine, eager: bool) -> None:
    """Set what vLLM and PyTorch read when they are imported."""
    if eager:  # vLLM compiles a few helpers even then, which needs a C++ compiler and gains nothing measurable
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(engine.cpu_kv_cache_gib))


def let_seeds_survive_chunks() -> None:
    """Let a request with a seed have a prompt that is prefilled in several steps.

    After all steps but the last vLLM takes the sampled token back and sets the offset of the request's generator back
    too. PyTorch's CPU generators have no offset: the engine dies ("CPU Generator does not use offset"). Here such a
    generator stays as it is; the token that it gives next is drawn at random as any other.
    """
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner  # the CPU's runner inherits from it

    keep_books = GPUModelRunner._bookkeeping_sync

    def without_generators(runner: Any, *arguments: Any, **named: Any) -> Any:
        generators, runner.input_batch.generators = runner.input_batch.generators, {}
        try:
            return keep_books(runner, *arguments, **named)
        finally:
            runner.input_batch.generators = generators

    GPUModelRunner._bookkeeping_sync = without_generators  # type: ignore[method-assign]
