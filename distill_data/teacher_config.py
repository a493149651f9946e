"""The config's section `teacher`: everything that decides what a teacher says, and how it is run."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from distill_data.labels_config import TEXT_FIELD, Labels
from distill_data.sampling_config import SamplingOverrides
from distill_data.section import Mode, Options, Section, Temperature, TokenIds, TopP
from distill_data.servers_config import Servers

# Arguments of vllm.EngineArgs that change how an engine runs and not what it says.
EXECUTION_OPTIONS = {
    "async_scheduling", "block_size", "cpu_offload_gb", "data_parallel_size", "disable_custom_all_reduce",
    "distributed_executor_backend", "enable_chunked_prefill", "enable_expert_parallel", "enable_prefix_caching",
    "kv_cache_memory_bytes", "max_num_batched_tokens", "max_parallel_loading_workers", "pipeline_parallel_size",
}  # fmt: skip
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
LabelKind = Literal["support", "sampled"]
DRAWS = 50  # as in the paper that the method is from
Rounding = Literal["graded", "fine", "float16"]
SOFT_LABEL_PRESETS: dict[str, dict[str, Any]] = {  # `balanced` is what the fields' defaults say
    "compact": {"min_prob": 0.004, "max_support": 64},
    "faithful": {"min_prob": 0.0003, "max_support": 128, "rounding": "fine"},
}


class Sampling(Section):
    """How the teacher samples. Part of the teacher's id, except `samples`."""

    samples: PositiveInt = 1
    """Traces per prompt. Raising it later generates only the new ones."""
    temperature: Temperature = 0.7
    """Sampling temperature; 0 is greedy. Soft labels are always the distribution at temperature 1."""
    top_p: TopP = 1.0
    """Nucleus sampling; below 1 it costs 1.4 to 1.9 times the time on a CPU."""
    top_k: NonNegativeInt = 0
    """Sample from the k likeliest tokens only; 0 is off."""
    max_tokens: PositiveInt = 512
    """A trace is cut after this many completion tokens (finish reason `length`)."""
    stop_token_ids: TokenIds = []
    """Further token ids that end a trace, beside EOS."""
    seed: int = 0
    """Each trace is sampled with its own seed, made from this, its prompt and its sample index."""

    @model_validator(mode="after")
    def _greedy_has_one_sample(self) -> Sampling:
        if self.temperature == 0.0 and self.samples > 1:
            raise ValueError(
                f"temperature 0 gives the same trace {self.samples} times: set samples: 1 or raise temperature"
            )
        return self

    def with_overrides(self, overrides: dict[str, Any] | None) -> Sampling:
        """How a source with these overrides (see `SamplingOverrides`) samples; itself where there are none.

        Raises:
            pydantic.ValidationError: an override that is unknown or out of range.
        """
        if overrides is None:
            return self
        return self.model_copy(update=SamplingOverrides.model_validate(overrides).model_dump(exclude_none=True))


class RetryTruncated(Section):
    """Traces that hit `max_tokens` are generated again with more room. Never part of the teacher's id."""

    max_tokens: PositiveInt
    """Traces that hit max_tokens are generated again with this many."""


class SoftLabelSelection(Section):
    """Which part of the teacher's next-token distribution is kept. Part of the teacher's id."""

    kind: Annotated[LabelKind, Field(exclude_if=lambda kind: kind == "support")] = "support"
    """`support`: the likeliest tokens, by `min_prob`. `sampled`: tokens drawn from the whole distribution, which makes
    the gradient of the loss unbiased; better in large batches only, see README's "Soft labels"."""
    draws: Annotated[int, Field(ge=1, le=255, exclude_if=lambda draws: draws == DRAWS)] = DRAWS
    """Of `sampled`: draws per position, without order. A token is kept with probability min(1, draws x p)."""
    preset: Literal["compact", "balanced", "faithful"] = "balanced"
    """Sets what is not given of the keys below; README's "Soft labels" has each one's size and error."""
    min_prob: Probability = 0.001
    """Keep every token with at least this probability (and always the likeliest)."""
    max_support: Annotated[int, Field(ge=1, le=255)] = 64
    """Keep at most this many tokens per position; the rest is the tail bucket."""
    rounding: Annotated[Rounding, Field(exclude_if=lambda rounding: rounding == "graded")] = "graded"
    """`graded`: log-probabilities with fewer bits the less likely a token is. `fine`: the same with two bits more.
    `float16`: with all its 10."""

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, given: Any) -> Any:
        return {**SOFT_LABEL_PRESETS.get(str(given.get("preset")), {}), **given} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _each_kind_has_its_keys(self) -> SoftLabelSelection:
        others = ("preset", "min_prob", "max_support") if self.kind == "sampled" else ("draws",)
        for name in others:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r} and kind {self.kind}, which does not look at it: leave {name} "
                    f"out or set kind: {'support' if self.kind == 'sampled' else 'sampled'}"
                )
        return self

    @property
    def most_kept(self) -> int:
        """The most tokens that a position keeps."""
        return self.draws if self.kind == "sampled" else self.max_support

    @property
    def ingredients(self) -> dict[str, Any]:
        """What of it changes the labels."""
        if self.kind == "sampled":
            return {"kind": self.kind, "draws": self.draws, "rounding": self.rounding}
        return self.model_dump(exclude={"kind", "draws", "preset"})


class Reasoning(Section):
    """How a completion is split into thinking and answer. Never part of the teacher's id."""

    open_tag: str = "<think>"
    """Opens the thinking; it may sit in the chat template's generation prompt."""
    close_tag: str = "</think>"
    """Closes the thinking; a trace that opened but never closed it is `unfinished_thinking`."""
    answer_pattern: str | None = None
    """For teachers without thinking tags: a regular expression whose last match (its first group, where it
    has one) is the answer; what stands before it is the thinking; no match is `missing_answer`."""

    @field_validator("answer_pattern")
    @classmethod
    def _answer_pattern_compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern


class Ray(Section):
    """Replicas as actors of a Ray cluster instead of processes on this machine.

    `root`, and a model that is a folder, have to be the same on all nodes, as on a shared filesystem.
    """

    address: str = "auto"
    """`HOST:PORT` of the cluster's head; `auto` is `RAY_ADDRESS`, else the cluster that this machine has joined. No
    cluster is ever started here."""
    num_cpus: NonNegativeFloat = 1.0
    """CPUs that a replica asks Ray for."""
    num_gpus: NonNegativeFloat | None = None
    """GPUs of one node that a replica asks for. Left out: what its parallelism takes, 0 for `backend: replay`."""
    resources: dict[str, PositiveFloat] = {}
    """Custom resources that a replica asks for, such as `{h200: 1}`."""


class Engine(Section):
    """How the teacher is run: never part of an id, so it may differ from machine to machine."""

    max_model_len: PositiveInt | None = None
    """Context length in tokens, prompt and completion together; the model's own when left out. After raising it, the
    traces that did not fit are generated again."""
    max_num_seqs: PositiveInt = 64
    """Sequences decoded at once."""
    replicas: PositiveInt = 1
    """Teacher workers, each with an engine of its own: on this machine, or on the cluster that `ray` names."""
    ray: Annotated[Ray | None, Field(exclude_if=lambda ray: ray is None)] = None
    """Run the replicas on a Ray cluster; left out: on this machine."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs per replica."""
    gpu_memory_utilization: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Share of a GPU's memory that vLLM may take."""
    cpu_kv_cache_gib: PositiveInt = 2
    """KV cache on a machine without a GPU, in GiB."""
    enforce_eager: bool | None = None
    """Skip compilation and CUDA graphs; when left out: true on a CPU, false on a GPU."""
    load_seconds: PositiveFloat = 1800.0
    """An engine that is not up after this many seconds is started again."""
    hang_seconds: PositiveFloat = 300.0
    """An engine that has requests and produces no token for this many seconds is ended and started again."""
    servers: Annotated[Servers | None, Field(exclude_if=lambda servers: servers is None)] = None
    """Servers that run the teacher, instead of engines on this machine; `replicas` are then clients of them, with
    `max_num_seqs` requests each."""
    options: Options = {}
    """Further keyword arguments of `vllm.EngineArgs` that change only how it runs: parallelism, memory, scheduling."""

    @field_validator("options")
    @classmethod
    def _options_leave_identity_alone(cls, options: dict[str, Any]) -> dict[str, Any]:
        if others := sorted(options.keys() - EXECUTION_OPTIONS):
            raise ValueError(
                f"{', '.join(others)} may change what the teacher says, or is set elsewhere under teacher:; "
                f"allowed here: {', '.join(sorted(EXECUTION_OPTIONS))}"
            )
        return options

    @model_validator(mode="after")
    def _servers_have_engines_of_their_own(self) -> Engine:
        if self.servers is not None:
            if self.ray is not None:
                raise ValueError("servers and ray are two places for the teacher: leave one of them out")
            for key in ("tensor_parallel_size", "options", "enforce_eager"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(
                        f"{key} is set and the engines are those of servers: set it where they are started"
                    )
        return self


class Teacher(Section):
    """The strong model, and everything that decides what it says."""

    model: str
    """Hub id, local folder, `.gguf` file, or `gguf+package://PACKAGE/FILE` for a GGUF file in a Python package."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; the commit it names goes into the teacher's id."""
    backend: Literal["vllm", "replay"] = "vllm"
    """`replay` makes up traces from a hash, with the model's tokenizer and no model: for dry runs and tests."""
    mode: Mode = "generate"
    """`generate`: the teacher writes completions. `score`: it scores completions that exist already, by teacher
    forcing. `classify`: it says how likely each of `labels` is. In both `sampling` plays no part."""
    labels: Annotated[Labels, Field(exclude_if=lambda labels: not labels)] = {}
    """Of mode `classify`: a list of labels, or by name of a label the words that the teacher would say for it, such as
    `{positive: " positive"}` after a prompt without a chat template. The teacher's mean log-probability of a label's
    tokens is kept, and their softmax is the row's distribution."""
    template: Annotated[str | None, Field(exclude_if=lambda template: template is None)] = None
    """Of mode `classify`: what the teacher is shown of a text, which stands for `{text}` in it, such as
    `"Review: {text}\\nSentiment:"`; left out: the text alone. The corpus, and so the student, has the text alone."""
    calibrate_on: Annotated[list[str], Field(exclude_if=lambda inputs: not inputs)] = []
    """Of mode `classify`: inputs without content, such as `[N/A, "", "[MASK]"]`; distributions are divided by what the
    teacher says about these (contextual calibration, Zhao et al., 2021). Changing them costs no other trace."""
    system_prompt: str | None = None
    """System message put before every prompt that has none of its own."""
    prompt_format: Literal["chat", "text"] = "chat"
    """`chat` renders the model's chat template; `text` feeds the prompt's text as it is (base models)."""
    chat_template_kwargs: Options = {}
    """Arguments of the chat template, such as `enable_thinking: true`."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Precision of the weights; the output head always computes in float32."""
    quantization: str | None = None
    """vLLM quantization method; the model's own when left out."""
    trust_remote_code: bool = False
    """Run code that ships with the model. Only for models that you have read."""
    sampling: Sampling = Sampling()
    """How traces are sampled."""
    retry_truncated: RetryTruncated | None = None
    """More room for the traces that hit `max_tokens`; left out: they stay as they are."""
    soft_labels: SoftLabelSelection = SoftLabelSelection()
    """What is kept of every token's distribution."""
    reasoning: Reasoning = Reasoning()
    """How thinking is told from the answer."""
    reasoning_parser: str | None = None
    """vLLM reasoning parser that tells thinking from the answer, such as `deepseek_r1` or `qwen3`, instead of the tags
    of `reasoning`; it sees `chat_template_kwargs`. Needs vLLM where versions are assembled. Never part of the
    teacher's id."""
    engine: Engine = Engine()
    """How the engine runs; never part of an id."""

    @model_validator(mode="after")
    def _text_has_no_template(self) -> Teacher:
        if self.prompt_format == "text" and (self.system_prompt is not None or self.chat_template_kwargs):
            raise ValueError(
                "prompt_format is text, which has no template for system_prompt or chat_template_kwargs: leave them out"
            )
        return self

    @model_validator(mode="after")
    def _labels_are_classified(self) -> Teacher:
        if self.mode == "classify" and not self.labels:
            raise ValueError("mode is classify and there is nothing to choose among: give labels:")
        given = [key for key in ("labels", "template", "calibrate_on") if getattr(self, key)]
        if given and self.mode != "classify":
            raise ValueError(f"{given[0]} is set and mode {self.mode}, which does not look at it: set mode: classify")
        if self.template is not None and TEXT_FIELD not in self.template:
            raise ValueError(f"template {self.template!r} has no place for the text: write {TEXT_FIELD} in it")
        if twice := [text for text in self.calibrate_on if self.calibrate_on.count(text) > 1]:
            raise ValueError(f"calibrate_on has {twice[0]!r} twice: leave one of them out")
        return self

    @model_validator(mode="after")
    def _a_classifier_says_nothing(self) -> Teacher:
        if self.mode == "classify":
            for key in ("soft_labels", "reasoning", "reasoning_parser"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"mode is classify, which has no use for {key}: leave it out")
        return self

    @model_validator(mode="after")
    def _thinking_is_split_one_way(self) -> Teacher:
        if self.reasoning_parser is not None and self.reasoning != Reasoning():
            raise ValueError(
                f"reasoning_parser {self.reasoning_parser!r} and reasoning: are two ways to split thinking from "
                "answer: leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _a_retry_has_more_room(self) -> Teacher:
        if self.retry_truncated is None:
            return self
        if self.mode != "generate":
            raise ValueError(f"mode is {self.mode}, which cuts no trace by max_tokens: leave retry_truncated out")
        if self.retry_truncated.max_tokens <= self.sampling.max_tokens:
            raise ValueError(
                f"retry_truncated.max_tokens is {self.retry_truncated.max_tokens} and sampling.max_tokens "
                f"{self.sampling.max_tokens}: make the first the larger one"
            )
        return self

    @model_validator(mode="after")
    def _servers_answer_for_a_model(self) -> Teacher:
        if self.engine.servers is None:
            return self
        if self.backend != "vllm":
            raise ValueError(f"backend is {self.backend} and engine.servers is set: leave one of them out")
        if self.soft_labels.kind == "sampled":
            raise ValueError(
                "soft_labels.kind is sampled and engine.servers is set: servers hand out the likeliest tokens only, so "
                "set kind: support or run the engine here"
            )
        return self

    @model_validator(mode="after")
    def _draws_are_made_in_one_process(self) -> Teacher:
        if self.soft_labels.kind == "sampled" and (size := self.engine.tensor_parallel_size) > 1:
            raise ValueError(
                f"soft_labels.kind is sampled and engine.tensor_parallel_size {size}: tokens are drawn where an engine "
                "runs in the worker's own process, so set tensor_parallel_size: 1 or kind: support"
            )
        return self

    @model_validator(mode="after")
    def _the_same_is_asked_once(self) -> Teacher:
        if self.mode != "generate" and self.sampling.samples > 1:
            what = "score the same completion" if self.mode == "score" else "ask the same"
            raise ValueError(
                f"mode is {self.mode} and sampling.samples {self.sampling.samples}, which would {what} "
                f"{self.sampling.samples} times: set samples: 1"
            )
        return self
