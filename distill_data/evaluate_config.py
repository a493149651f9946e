"""The config's section `student.evaluate`: how the student is measured, alone and beside its teacher and baselines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from distill_data.section import Section

ROLES = ("teacher", "student")


def _unless(default: Any) -> Any:
    """Left out of dumps where it is the default: manifests from before the key was there stay what they were."""
    return Field(exclude_if=lambda value: value == default)


class Baseline(Section):
    """A further model that answers the held-out prompts: the same student trained otherwise, or anybody's."""

    name: str
    """What tables call it."""
    model: str
    """Hub id, local folder (such as `data/students/NAME`), `.gguf` file, or `gguf+package://PACKAGE/FILE`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    trust_remote_code: bool = False
    """Run code that ships with the model. Only for models that you have read."""


class Evaluate(Section):
    """How the student is measured: on held-out traces after training, and by `distill-data evaluate` beside others."""

    max_traces: PositiveInt = 256
    """At most this many held-out traces, from the top."""
    batch_size: PositiveInt = 8
    """Traces per batch."""
    generate: Annotated[bool, _unless(True)] = True
    """`distill-data evaluate` has teacher, student and baselines answer the held-out prompts that have a judge, and
    times them. False: only the held-out traces are looked at, and no engine starts."""
    max_prompts: Annotated[PositiveInt, _unless(256)] = 256
    """At most this many held-out prompts are answered, those with the smallest hashes."""
    samples: Annotated[PositiveInt | None, _unless(None)] = None
    """Answers to each of them; as many as `teacher.sampling.samples` when left out."""
    k: Annotated[list[PositiveInt] | None, _unless(None)] = None
    """pass@k for each of these; when left out, 1 and the number of samples."""
    dtype: Annotated[Literal["bfloat16", "float16", "float32"] | None, _unless(None)] = None
    """Precision in which student and baselines answer; that in which each is saved when left out."""
    speed_seconds: Annotated[NonNegativeFloat, _unless(5.0)] = 5.0
    """For so long every model generates only to be timed, after a warm-up of the same length; 0: none is timed."""
    baselines: Annotated[list[Baseline], _unless([])] = []
    """Further models."""
    lm_eval: Annotated[list[str], _unless([])] = []
    """Tasks of the lm-evaluation-harness, by name or as the path of a task's YAML file; every model does each."""
    lm_eval_limit: Annotated[PositiveInt | None, _unless(None)] = None
    """Only the first so many documents of each task; all when left out."""

    @field_validator("baselines")
    @classmethod
    def _names_differ(cls, baselines: list[Baseline]) -> list[Baseline]:
        names = [*ROLES, *(baseline.name for baseline in baselines)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two models are named {twice[0]!r}: give the baseline another name:")
        return baselines

    @property
    def of_answers(self) -> dict[str, Any]:
        """The keys beside OF_LABELS that are not at their defaults: what is generated, and who else is looked at."""
        return self.model_dump(exclude=OF_LABELS, exclude_defaults=True)


OF_LABELS = {"max_traces", "batch_size"}
"""Keys of `evaluate` that say how held-out traces are looked at, also during training; the others are of `distill-data
evaluate` alone, and no student is named by them."""
