"""The config's section `student`: who learns, what is minimised, how it is measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from distill_data.evaluate_config import Evaluate
from distill_data.publish_config import Publish
from distill_data.section import Fraction, Options, Section

# Left out of what a student is named by where it is the default: older students keep their names.
Batching = Annotated[
    Literal["padded", "length_grouped", "packed"], Field(exclude_if=lambda batching: batching == "padded")
]
_UNLESS_NONE = Field(exclude_if=lambda value: value is None)
Objective = Literal["forward_kl", "renormalised_kl", "reverse_kl", "jsd", "uld", "text"]
Task = Literal["language_model", "classification"]
Unlabelled = Literal["refuse", "cross_entropy"]
Thinking = Literal["train", "mask", "drop"]


class Layers(Section):
    """Which layers of the teacher the student begins with."""

    layers: list[NonNegativeInt]
    """Numbers of the teacher's layers from 0, ascending; embeddings, norm and output head come along."""

    @field_validator("layers")
    @classmethod
    def _ascending(cls, layers: list[int]) -> list[int]:
        if not layers or any(below >= above for below, above in pairwise(layers)):
            raise ValueError(f"{layers} is no ascending list of layers: write for example [0, 6, 12, 18]")
        return layers


class NewStudent(Section):
    """A student that is made and not loaded: random weights, or layers of the teacher. Exactly one of the two."""

    from_config: Annotated[Options | None, _UNLESS_NONE] = None
    """Random weights: `model_type` and any field of that architecture's transformers config; vocabulary and special
    tokens come from the tokenizer."""
    from_teacher: Annotated[Layers | None, _UNLESS_NONE] = None
    """Some of the teacher's own layers, weights included."""

    @field_validator("from_config")
    @classmethod
    def _names_its_architecture(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not isinstance(value.get("model_type"), str):
            raise ValueError("needs model_type, for example model_type: llama")
        return value


class Loss(Section):
    """loss = kl x objective + cross_entropy x CE(sampled token), means over completion tokens."""

    # At their defaults the next four are left out of what a student is named by: older students keep their names.
    objective: Annotated[Objective, Field(exclude_if=lambda objective: objective == "forward_kl")] = "forward_kl"
    """How far the student is from the teacher. `forward_kl`: KL(teacher || student) on the support, with the tail as
    one bucket on both sides. `renormalised_kl`: both normalised over the support, the tail forgotten. `reverse_kl`:
    KL(student || teacher) with the bucket. `jsd`: the generalised Jensen-Shannon divergence between the two, with the
    bucket. Of sampled soft labels only `forward_kl`, over the whole vocabulary: they estimate it without bias. For a
    student with another tokenizer than its teacher: `uld`, the distance between both sides' sorted probabilities where
    their tokens start at the same character (Boizard et al., 2024), or `text`: no distribution, only cross-entropy on
    what the teacher said (Kim and Rush, 2016), which also is the baseline of a student with the teacher's tokenizer."""
    temperature: Annotated[float, Field(gt=0.0, exclude_if=lambda temperature: temperature == 1.0)] = 1.0
    """Divides the log-probabilities of both sides, and its square multiplies the result. Only of `renormalised_kl`: a
    tail of which only the mass is known cannot be tempered."""
    beta: Annotated[float, Field(ge=0.0, le=1.0, exclude_if=lambda beta: beta == 0.5)] = 0.5
    """The teacher's share in the mixture of `jsd`: 0 is the forward KL, 1 the reverse KL, as in TRL's GKD trainer."""
    unlabelled: Annotated[Unlabelled, Field(exclude_if=lambda unlabelled: unlabelled == "refuse")] = "refuse"
    """What a completion token without soft labels is to the student. `refuse`: a reason not to train; the trace is
    named. `cross_entropy`: a hard label, its objective is -log q(token). Only of `forward_kl`."""
    kl: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the objective; of `text` 0."""
    cross_entropy: Annotated[float, Field(ge=0.0)] = 0.1
    """Weight of the cross-entropy on the token that the teacher sampled, or on the student's tokens of its text; of
    `text` 1."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_cross_entropy_alone(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("objective") != "text":
            return values
        return {"kl": 0.0, "cross_entropy": 1.0} | values

    @model_validator(mode="after")
    def _text_has_no_distribution(self) -> Loss:
        if self.objective == "text" and self.kl:
            raise ValueError(
                f"objective is text, which looks at no distribution, and kl {self.kl:g}: leave kl out, or set "
                "objective: forward_kl"
            )
        return self

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

    @model_validator(mode="after")
    def _a_hard_label_is_a_forward_kl(self) -> Loss:
        if self.unlabelled == "cross_entropy" and self.objective != "forward_kl":
            raise ValueError(
                f"unlabelled is cross_entropy and objective {self.objective}, which of one sure token is no "
                "cross-entropy: set objective: forward_kl or unlabelled: refuse"
            )
        return self


class Lora(Section):
    """Low-rank adapters in place of full fine-tuning (Hu et al., 2022), by peft."""

    rank: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveInt = 32
    """Their output is scaled by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout before them."""
    target_modules: list[str] = []
    """Names of the layers that get one; every linear layer but the output head when left out."""


class EarlyStopping(Section):
    """Training ends where the held-out KL has stopped falling, with the weights that it was lowest at."""

    every: PositiveInt = 100
    """Steps between two looks at the held-out traces (as many as `evaluate` says)."""
    patience: PositiveInt = 3
    """This many looks in a row without a lower KL end the training."""


class Train(Section):
    """The light fine-tuning step, on the transformers Trainer."""

    steps: PositiveInt = 100
    """Optimizer steps."""
    batch_size: PositiveInt = 8
    """Traces per batch. Processes of `accelerate launch` share a step's batches: their number changes no student."""
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
    thinking: Annotated[Thinking, Field(exclude_if=lambda thinking: thinking == "train")] = "train"
    """`train`: the student learns to think as the teacher does. `mask`: it reads the teacher's thinking and learns the
    answer alone. `drop`: the thinking is left out, and the student learns to answer at once; where the chat template
    opens the thought, it learns to close it first. Thinking ends with the first `teacher.reasoning.close_tag`, which
    has to be one token. References have none."""
    learns: Annotated[Literal["trace", "reference"], Field(exclude_if=lambda learns: learns == "trace")] = "trace"
    """`trace`: what the teacher said. `reference`: the source's own reference to the same prompt, with `loss:
    {objective: text}`; what a student learns without a teacher. Of a classifier it says what the hard label is, which
    `loss.cross_entropy` weighs: the teacher's likeliest label, or the source's reference. A text without one adds no
    cross-entropy, and is left out and counted where `loss.kl` is 0."""
    look_every: Annotated[PositiveInt | None, _UNLESS_NONE] = None
    """Steps between looks at the held-out traces that are only written down, in metrics.jsonl; left out: none."""
    lora: Annotated[Lora | None, _UNLESS_NONE] = None
    """Train adapters only. The student's folder holds the merged model, and the adapter alone in `adapter/`."""
    early_stopping: Annotated[EarlyStopping | None, _UNLESS_NONE] = None
    """End before `steps`; needs held-out traces."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory for about a third more time."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints, from which a training that was killed goes on with the same data order."""
    tensorboard: bool = False
    """Write TensorBoard's event files too, into `tensorboard/` in the student's folder; `pip install tensorboard`.
    metrics.jsonl is always there."""


EXECUTION = {"gradient_checkpointing", "checkpoint_every", "tensorboard"}
"""Keys of `train` that do not decide the weights: a student keeps its name whatever they are."""


class Student(Section):
    """The small model. Left out: nothing is trained."""

    model: str | NewStudent
    """Hub id or local folder to start from, `from_config:` for random weights, or `from_teacher:` for some of the
    teacher's own layers."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    task: Annotated[Task, Field(exclude_if=lambda task: task == "language_model")] = "language_model"
    """`language_model`: it learns to say what the teacher says. `classification`: it learns the distributions over
    labels of `teacher.mode: classify`, with a new head on any architecture that has one for sequence classification."""
    tokenizer: str = "teacher"
    """`teacher`, or the hub id or folder of the student's own. With another vocabulary than the teacher's only
    `train.loss.objective` `uld` and `text` apply to a language model: its distributions are over other ids."""
    trust_remote_code: bool = False
    """Run code that ships with the model. Only for models that you have read."""
    train: Train = Train()
    """How it is trained."""
    evaluate: Evaluate = Evaluate()
    """How it is measured."""
    publish: Annotated[Publish | None, _UNLESS_NONE] = None
    """Where `distill-data run` publishes the trained student: a model repository of a hub, or a folder elsewhere."""

    @model_validator(mode="after")
    def _a_classifier_is_trained_plainly(self) -> Student:
        if self.task == "classification":
            if isinstance(self.model, NewStudent) and self.model.from_teacher is not None:
                raise ValueError(
                    "task is classification and model: from_teacher:, which is a language model: give a "
                    "folder, a hub id or from_config:"
                )
            train, loss = self.train, self.train.loss
            if loss.objective not in ("forward_kl", "renormalised_kl", "text"):
                raise ValueError(
                    f"task is classification and train.loss.objective {loss.objective}: of labels, which are few and "
                    "all there, use forward_kl, renormalised_kl (the same, with a temperature) or text (hard labels)"
                )
            for key in ("thinking", "look_every", "lora", "early_stopping"):
                if getattr(train, key) != Train.model_fields[key].default:
                    raise ValueError(f"task is classification, for which there is no train.{key}: leave it out")
            if train.batching == "packed":
                raise ValueError("task is classification and train.batching packed: use padded or length_grouped")
        elif self.train.learns == "reference" and self.train.loss.objective != "text":
            raise ValueError(
                f"train.learns is reference and train.loss.objective {self.train.loss.objective}, and references have "
                "no distributions: set loss: {objective: text}"
            )
        return self

    @model_validator(mode="after")
    def _a_classifier_answers_nothing(self) -> Student:
        if self.task == "classification" and (unused := self.evaluate.of_answers):
            key, value = next(iter(unused.items()))
            raise ValueError(
                f"task is classification and evaluate.{key} {value}, which is of models that write answers: leave it "
                "out; classifiers are measured on held-out texts, beside their teacher"
            )
        return self

    @model_validator(mode="after")
    def _the_teachers_layers_have_its_tokenizer(self) -> Student:
        if self.tokenizer != "teacher" and isinstance(self.model, NewStudent) and self.model.from_teacher is not None:
            raise ValueError(
                f"tokenizer is {self.tokenizer} and model: from_teacher:, whose embeddings are those of the teacher's "
                "tokens: set tokenizer: teacher"
            )
        return self

    @model_validator(mode="after")
    def _is_made_one_way(self) -> Student:
        new = self.model
        if isinstance(new, NewStudent) and (new.from_config is None) == (new.from_teacher is None):
            raise ValueError("model: needs exactly one of from_config: (random weights) and from_teacher: (its layers)")
        return self
