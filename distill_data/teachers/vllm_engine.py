"""The vLLM teacher. Only the modules `vllm_*` of this folder import vllm.

Log-probabilities are raw (before temperature and penalties), over the full vocabulary, from a float32 output head:
a bfloat16 head quantises them by 1/16 to 1/4 nat.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distill_data import teacher_config
from distill_data.errors import TeacherError
from distill_data.teachers.base import Completion, Request, RequestRefused, check_ids
from distill_data.teachers.logprob_rows import LogprobRows
from distill_data.teachers.vllm_cpu import configure_cpu, let_seeds_survive_chunks
from distill_data.teachers.vllm_draws import Draws, configure_draws
from distill_data.teachers.vllm_labels import LabelQuestions
from distill_data.teachers.vllm_top_k import use_fast_top_k

SCORED_TOKENS_AT_ONCE = 1024


class VllmTeacher:
    """A vLLM engine that decodes requests together; see `base.Teacher`.

    On a CPU the engine runs in this process: it starts 5 times faster and decodes 1.4 to 1.9 times faster on two
    cores than vLLM's own multi-process mode. On a GPU vLLM's defaults stay.
    """

    def __init__(self, folder: Path, teacher: teacher_config.Teacher) -> None:
        on_cpu = not _has_gpu()
        eager = on_cpu if teacher.engine.enforce_eager is None else teacher.engine.enforce_eager
        if on_cpu:
            configure_cpu(teacher.engine, eager)
        draws = teacher.soft_labels.kind == "sampled"
        if draws:
            configure_draws()
        from vllm import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        arguments = _engine_arguments(folder, teacher, eager)
        if on_cpu:
            arguments.setdefault("block_size", 32)
            use_fast_top_k()
            let_seeds_survive_chunks()
        self._draws = Draws() if draws else None
        self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
        self._requests: Any = self._engine.output_processor.request_states  # by the name that add_request returns
        model = self._engine.model_config
        self.tokenizer = self._engine.get_tokenizer()
        self.max_model_len = model.max_model_len
        self.vocab_size = model.get_vocab_size()
        self._width = min(teacher.soft_labels.most_kept, self.vocab_size)
        self._scores = teacher.mode == "score"
        self._questions = LabelQuestions(self._engine) if teacher.mode == "classify" else None

    def add(self, request: Request) -> None:
        """Queue a request; see `base.Teacher.add`."""
        from vllm.exceptions import VLLMValidationError

        token_ids = request.token_ids
        check_ids(token_ids, self.vocab_size)
        if self._questions is not None:
            self._questions.add(request)
            return
        try:
            name = self._engine.add_request(
                request.request_id, {"prompt_token_ids": token_ids}, self._sampling_params(request)
            )
        except (VLLMValidationError, ValueError) as error:
            raise RequestRefused("request_failed", " ".join(str(error).split())) from error
        self._requests[name].logprobs_processor = LogprobRows(self._width)

    def step(self) -> list[Completion]:
        """Advance the engine by one step; see `base.Teacher.step`."""
        finished = [output for output in self._engine.step() if output.finished]
        if self._questions is not None:
            return self._questions.finished(finished)
        if finished and self._draws is not None:
            self._draws.check()
        return [self._scored(output) if self._scores else self._generated(output) for output in finished]

    def tokens_in_flight(self) -> int:
        """Tokens sampled so far for running requests; see `base.Teacher.tokens_in_flight`."""
        return sum(request.detokenizer.num_output_tokens() for request in self._requests.values())

    def _sampling_params(self, request: Request) -> Any:
        """Nothing is detokenised and nothing is sent before the end; a scored request samples one token in vain."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = request.sampling
        common: dict[str, Any] = {"detokenize": False, "output_kind": RequestOutputKind.FINAL_ONLY}
        if request.scored_token_ids is not None:
            return SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=self._width, **common)
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=sampling.max_tokens,
            stop_token_ids=sampling.stop_token_ids or None,
            seed=request.seed,
            logprobs=self._width,
            **common,
        )

    def _generated(self, output: Any) -> Completion:
        completion = output.outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            return _without_tokens(output, self._width)
        token_ids = np.array(completion.token_ids, np.int32)
        return _completion(output.request_id, completion.finish_reason, token_ids, completion.logprobs.arrays())

    def _scored(self, output: Any) -> Completion:
        """Row i of a prompt's log-probabilities describes prompt token i + 1."""
        if output.outputs[0].finish_reason not in ("stop", "length"):
            return _without_tokens(output, self._width)
        ids, logprobs = output.prompt_logprobs.arrays()
        return _completion(output.request_id, "stop", np.array(output.prompt_token_ids[1:], np.int32), (ids, logprobs))


def _completion(
    request_id: str, finish_reason: str, token_ids: np.ndarray, rows: tuple[np.ndarray, np.ndarray]
) -> Completion:
    """VLLM's rows are [token, top 1 … top k], the token twice: column 0 is only kept as its value. So are draws."""
    ids, logprobs = rows
    if not np.array_equal(ids[:, 0], token_ids):
        raise TeacherError(
            f"vLLM's log-probabilities are not those of its {len(token_ids)} tokens ({len(ids)} rows): this version of "
            "vLLM is not supported, install the pinned one"
        )
    return Completion(request_id, token_ids, finish_reason, ids[:, 1:], logprobs[:, 1:], logprobs[:, 0])


def _without_tokens(output: Any, width: int) -> Completion:
    nothing = np.empty((0, width), np.float32)
    ids = nothing.astype(np.int32)
    return Completion(output.request_id, ids[:, 0], output.outputs[0].finish_reason, ids, nothing, nothing[:, 0])


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _engine_arguments(folder: Path, teacher: teacher_config.Teacher, eager: bool) -> dict[str, Any]:
    engine = teacher.engine
    arguments: dict[str, Any] = {
        "model": str(folder),
        "dtype": teacher.dtype,
        "quantization": teacher.quantization,
        "trust_remote_code": teacher.trust_remote_code,
        "load_format": "safetensors",
        "max_model_len": engine.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "enforce_eager": eager,
        "logprobs_mode": "raw_logprobs",
        "max_logprobs": teacher.soft_labels.most_kept,
        "hf_overrides": {"head_dtype": "float32"},
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "seed": 0,
    }
    if teacher.mode == "score":  # logits of every token of a prompt chunk are in memory at once
        arguments["max_num_batched_tokens"] = max(SCORED_TOKENS_AT_ONCE, engine.max_num_seqs)
    return arguments | engine.options
