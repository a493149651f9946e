"""The config: a frozen tree of pydantic models.

Every field carries its documentation below it; README's reference is generated from here.
Validators only look at values: no file is opened and no model is loaded here.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from distill_data.prompt_config import (
    DatasetPrompts,
    Mode,
    Options,
    PromptSource,
    SamplingOverrides,
    Section,
    Temperature,
    TokenIds,
    TopP,
)

CORPUS_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")

# Arguments of vllm.EngineArgs that change how an engine runs and not what it says.
EXECUTION_OPTIONS = {
    "async_scheduling", "block_size", "cpu_offload_gb", "data_parallel_size", "disable_custom_all_reduce",
    "distributed_executor_backend", "enable_chunked_prefill", "enable_expert_parallel", "enable_prefix_caching",
    "kv_cache_memory_bytes", "max_num_batched_tokens", "max_parallel_loading_workers", "pipeline_parallel_size",
}  # fmt: skip

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
# Left out of what a student is named by where it is the default: older students keep their names.
Batching = Annotated[
    Literal["padded", "length_grouped", "packed"], Field(exclude_if=lambda batching: batching == "padded")
]
Rounding = Literal["graded", "float16"]
SOFT_LABEL_PRESETS: dict[str, dict[str, Any]] = {  # `balanced` is what the fields' defaults say
    "compact": {"min_prob": 0.004, "max_support": 64},
    "faithful": {"min_prob": 0.0003, "max_support": 128, "rounding": "float16"},
}
Objective = Literal["forward_kl", "renormalised_kl", "reverse_kl", "jsd"]


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

    preset: Literal["compact", "balanced", "faithful"] = "balanced"
    """Sets what is not given of the keys below; README's "Soft labels" has each one's size and error."""
    min_prob: Probability = 0.001
    """Keep every token with at least this probability (and always the likeliest)."""
    max_support: Annotated[int, Field(ge=1, le=255)] = 64
    """Keep at most this many tokens per position; the rest is the tail bucket."""
    rounding: Annotated[Rounding, Field(exclude_if=lambda rounding: rounding == "graded")] = "graded"
    """`graded`: log-probabilities with fewer bits the less likely a token is. `float16`: with all its 10."""

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, given: Any) -> Any:
        return {**SOFT_LABEL_PRESETS.get(str(given.get("preset")), {}), **given} if isinstance(given, dict) else given


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


class Engine(Section):
    """How the teacher is run: never part of an id, so it may differ from machine to machine."""

    max_model_len: PositiveInt | None = None
    """Context length in tokens, prompt and completion together; the model's own when left out. After raising it, the
    traces that did not fit are generated again."""
    max_num_seqs: PositiveInt = 64
    """Sequences decoded at once."""
    replicas: PositiveInt = 1
    """Teacher workers on this machine, each with an engine of its own."""
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
    forcing; `sampling` then plays no part."""
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
        if self.mode == "score":
            raise ValueError("mode is score, which cuts no trace by max_tokens: leave retry_truncated out")
        if self.retry_truncated.max_tokens <= self.sampling.max_tokens:
            raise ValueError(
                f"retry_truncated.max_tokens is {self.retry_truncated.max_tokens} and sampling.max_tokens "
                f"{self.sampling.max_tokens}: make the first the larger one"
            )
        return self

    @model_validator(mode="after")
    def _a_completion_is_scored_once(self) -> Teacher:
        if self.mode == "score" and self.sampling.samples > 1:
            raise ValueError(
                f"mode is score and sampling.samples {self.sampling.samples}, which would score the same completion "
                f"{self.sampling.samples} times: set samples: 1"
            )
        return self


class Judge(Section):
    """Scores every trace against its prompt's reference. Left out: nothing is judged."""

    verifier: Literal["reasoning_gym", "exact"]
    """`exact`: the answer, or the final answer found in it, is the reference. `reasoning_gym`: the task's own
    scorer; prompts of other sources are compared as `exact` does."""
    pass_score: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A trace passes with at least this score (0 to 1)."""


class Keep(Section):
    """Which traces of a prompt enter the corpus."""

    passed_only: bool = False
    """Keep only traces that passed the judge (rejection sampling)."""


class Filters(Section):
    """Reasons to drop a trace whatever the judge said; dropped rows stay readable in `rejected/`."""

    truncated: bool = True
    """Drop traces cut by `max_tokens` or by the context."""
    unfinished_thinking: bool = True
    """Drop traces that opened a thought and never closed it."""
    missing_answer: bool = True
    """Drop traces whose answer is empty."""


class Validation(Section):
    """Held-out rows. Split by prompt, never by sample, by a hash of the prompt."""

    fraction: Fraction = 0.1
    """Share of prompts held out; when above 0, at least one prompt and never all of them."""
    seed: int = 0
    """Another seed holds out other prompts."""


class FromConfig(Section):
    """A student with random weights, built from an architecture."""

    from_config: Options
    """`model_type` and any field of that architecture's transformers config; vocabulary and special tokens
    come from the tokenizer."""

    @field_validator("from_config")
    @classmethod
    def _names_its_architecture(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(value.get("model_type"), str):
            raise ValueError("needs model_type, for example model_type: llama")
        return value


class Loss(Section):
    """loss = kl x objective + cross_entropy x CE(sampled token), means over completion tokens.

    A trace with a position that has no soft labels is refused, whatever the objective.
    """

    # At their defaults the next three are left out of what a student is named by: older students keep their names.
    objective: Annotated[Objective, Field(exclude_if=lambda objective: objective == "forward_kl")] = "forward_kl"
    """How far the student is from the teacher. `forward_kl`: KL(teacher || student) on the support, with the tail as
    one bucket on both sides. `renormalised_kl`: both normalised over the support, the tail forgotten. `reverse_kl`:
    KL(student || teacher) with the bucket. `jsd`: the generalised Jensen-Shannon divergence between the two, with the
    bucket."""
    temperature: Annotated[float, Field(gt=0.0, exclude_if=lambda temperature: temperature == 1.0)] = 1.0
    """Divides the log-probabilities of both sides, and its square multiplies the result. Only of `renormalised_kl`: a
    tail of which only the mass is known cannot be tempered."""
    beta: Annotated[float, Field(ge=0.0, le=1.0, exclude_if=lambda beta: beta == 0.5)] = 0.5
    """The teacher's share in the mixture of `jsd`: 0 is the forward KL, 1 the reverse KL, as in TRL's GKD trainer."""
    kl: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the objective."""
    cross_entropy: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the cross-entropy on the token that the teacher sampled."""

    @model_validator(mode="after")
    def _some_weight(self) -> Loss:
        if self.kl == 0 and self.cross_entropy == 0:
            raise ValueError("kl and cross_entropy are both 0: give at least one a weight")
        return self

    @model_validator(mode="after")
    def _only_a_support_can_be_tempered(self) -> Loss:
        if self.temperature != 1.0 and self.objective != "renormalised_kl":
            raise ValueError(
                f"temperature is {self.temperature:g} and objective {self.objective}, whose tail cannot be tempered: "
                "set temperature: 1 or objective: renormalised_kl"
            )
        return self

    @model_validator(mode="after")
    def _only_jsd_has_a_beta(self) -> Loss:
        if "beta" in self.model_fields_set and self.objective != "jsd":
            raise ValueError(
                f"beta is {self.beta:g} and objective {self.objective}, which has none: leave beta out or set "
                "objective: jsd"
            )
        return self


class Train(Section):
    """The light fine-tuning step, on the transformers Trainer."""

    steps: PositiveInt = 100
    """Optimizer steps."""
    batch_size: PositiveInt = 8
    """Traces per step and device."""
    batching: Batching = "padded"
    """`padded`: to the longest trace of a batch. `length_grouped`: the same, with traces of about the same length in a
    batch. `packed`: end to end without padding; refused for models whose attention would cross from trace to trace."""
    gradient_accumulation: PositiveInt = 1
    """Batches per optimizer step."""
    learning_rate: PositiveFloat = 1.0e-4
    """Peak learning rate; linear warm-up, then cosine decay."""
    warmup_ratio: Fraction = 0.05
    """Share of the steps that warm up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW's weight decay."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient clipping."""
    max_length: PositiveInt = 1024
    """Longer traces (prompt and completion) are left out of training and counted, never cut."""
    bf16: bool = False
    """Train in bfloat16 autocast."""
    seed: int = 0
    """Seed of initial weights and data order."""
    loss: Loss = Loss()
    """What is minimised."""


class Evaluate(Section):
    """How the student is measured on the held-out traces."""

    max_traces: PositiveInt = 256
    """At most this many held-out traces, from the top."""
    batch_size: PositiveInt = 8
    """Traces per batch."""


class Student(Section):
    """The small model. Left out: nothing is trained."""

    model: str | FromConfig
    """Hub id or local folder to start from, or `from_config:` for random weights."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    tokenizer: str = "teacher"
    """`teacher`, or the hub id or folder of a tokenizer; distributions need the teacher's own vocabulary."""
    trust_remote_code: bool = False
    """Run code that ships with the model. Only for models that you have read."""
    train: Train = Train()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How it is measured."""


class Storage(Section):
    """How files are written: never part of an id."""

    shard_size: PositiveInt = 256
    """Traces per shard of work."""
    flush_rows: PositiveInt = 256
    """A worker commits a part after this many finished traces …"""
    flush_seconds: PositiveFloat = 30.0
    """… or after this many seconds. A hard kill costs at most what finished since."""
    when_busy: Literal["wait", "leave"] = "wait"
    """What a build does while another one of the same teacher is at work: wait for it, or leave and say so."""
    rows_per_file: PositiveInt = 50_000
    """Rows per Parquet file of a corpus version."""


class Config(Section):
    """A whole job. Sections that are left out are not done."""

    name: str
    """Name of the corpus; its versions are `NAME@v1`, `NAME@v2`, …"""
    root: str = "./data"
    """Folder that holds traces, corpora and students; relative to where the command runs."""
    prompts: Annotated[list[PromptSource], Field(min_length=1)]
    """Where prompts come from, in order."""
    teacher: Teacher
    """Who answers."""
    judge: Judge | None = None
    """How answers are scored."""
    keep: Keep = Keep()
    """Which answers are kept."""
    filters: Filters = Filters()
    """Which traces are dropped, and why."""
    validation: Validation = Validation()
    """What is held out."""
    student: Student | None = None
    """Who learns."""
    storage: Storage = Storage()
    """How files are written."""

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_name(cls, name: str) -> str:
        if not CORPUS_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no corpus name: use letters, digits, '.', '_' and '-'")
        return name

    @field_validator("root")
    @classmethod
    def _root_is_local(cls, root: str) -> str:
        if "://" in root:
            raise ValueError(f"{root!r} is a URL, and this version writes to local folders: give a path")
        return root

    @model_validator(mode="after")
    def _source_names_are_unique(self) -> Config:
        labels = [source.label for source in self.prompts]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"two prompt sources are named {twice[0]!r}: give one of them another name:")
        return self

    @model_validator(mode="after")
    def _greedy_sources_have_one_sample(self) -> Config:
        for source in self.prompts:
            sampling = self.sampling_of(source)
            if sampling.temperature == 0.0 and sampling.samples > 1:
                raise ValueError(
                    f"source {source.label!r} is sampled at temperature {sampling.temperature:g}, which gives the same "
                    f"trace {sampling.samples} times: give it sampling: {{samples: 1}} or raise its temperature"
                )
        return self

    @model_validator(mode="after")
    def _a_retry_has_more_room_for_every_source(self) -> Config:
        retry = self.teacher.retry_truncated
        for source in self.prompts:
            if retry is not None and retry.max_tokens <= (most := self.sampling_of(source).max_tokens):
                raise ValueError(
                    f"teacher.retry_truncated.max_tokens is {retry.max_tokens} and source {source.label!r} has "
                    f"sampling.max_tokens {most}: make the first the larger one"
                )
        return self

    @model_validator(mode="after")
    def _completions_are_there_to_be_scored(self) -> Config:
        for source in self.prompts:
            if (problem := source.why_not(self.teacher.mode)) is not None:
                raise ValueError(f"teacher.mode is {self.teacher.mode} and source {source.label!r} {problem}")
        return self

    @model_validator(mode="after")
    def _text_prompts_have_no_roles(self) -> Config:
        for source in self.prompts:
            if self.teacher.prompt_format == "text" and isinstance(source, DatasetPrompts) and source.messages:
                raise ValueError(
                    f"teacher.prompt_format is text and source {source.label!r} has a chat column, messages: "
                    f"{source.messages!r}: name a text column with prompt:"
                )
        return self

    @model_validator(mode="after")
    def _passed_only_needs_a_judge(self) -> Config:
        if self.keep.passed_only and self.judge is None:
            raise ValueError("keep.passed_only is true and there is no judge: add a judge: section")
        return self

    @model_validator(mode="after")
    def _verifier_covers_its_sources(self) -> Config:
        if self.judge is None:
            return self
        for source in self.prompts:
            if isinstance(source, DatasetPrompts) and source.reference is None:
                raise ValueError(f"source {source.label!r} has no reference: column for the judge to compare with")
        return self

    def sampling_of(self, source: PromptSource) -> Sampling:
        """How a source's prompts are sampled."""
        overrides = source.sampling.model_dump(exclude_none=True) if source.sampling else None
        return self.teacher.sampling.with_overrides(overrides)
