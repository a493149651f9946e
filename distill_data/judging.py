"""What models that judge are asked: a job of their own, whose prompts are the answers of the job that is judged.

So judging is planned, resumed and paid once by what plans, resumes and pays builds.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.corpus.assembly import rows_of, slices, split_part
from distill_data.errors import TraceStoreError, reason_of
from distill_data.judge_config import LlmJudge
from distill_data.mapped import mapped_table
from distill_data.prompt_config import DatasetPrompts
from distill_data.prompts import PromptSet
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.reasoning import Splitter
from distill_data.records import PROMPT_SCHEMA, Prompt, prompts_to_table, table_to_prompts
from distill_data.trace_store import TraceStore
from distill_data.verify.llm_judge import SOURCE, judge_prompt

EXAMPLE = "I am not sure, but I think that it is this."
Answers = list[tuple[str, Prompt]]


def model_judges(settings: Config) -> list[LlmJudge]:
    """The judges of a config that are models."""
    return [judge for judge in settings.judges if isinstance(judge, LlmJudge)]


def judging_job(settings: Config, judge: LlmJudge) -> Config:
    """The config under which a judge works: its teacher, and what it is asked as the only source."""
    asked = DatasetPrompts(source="dataset", path=SOURCE, prompt="text", name=SOURCE)
    return Config(
        name=settings.name, root=settings.root, prompts=[asked], teacher=judge.teacher, storage=settings.storage
    )


def judges_prompts(settings: Config, judge: LlmJudge, prompts: pa.Table) -> np.ndarray:
    """Whether this judge scores the answers to each prompt: bool [prompts]."""
    labels = [source.label for source in settings.prompts if settings.judge_of(source) == judge]
    return pc.is_in(prompts["source"], value_set=pa.array(labels, pa.string())).to_numpy()


def answers_to(prompts: PromptSet, store: TraceStore, finished: pa.Table, split: Splitter) -> Iterator[Answers]:
    """The answers of finished traces that are not empty, with their prompts, a slice at a time.

    `finished` has the columns of `planning.Plan.finished`.
    """
    finished = finished.filter(pc.is_null(finished["error"]))
    for part in slices(finished["completion_tokens"].to_numpy()):
        rows = rows_of(finished, part)
        splits = split_part(store.read(rows.select(["part", "row"]), ["completion", "prompt_suffix"]), split)
        asked, at = np.unique(rows["prompt_row"].to_numpy(), return_inverse=True)
        given = table_to_prompts(prompts.take(asked))
        answers = ((one.answer, given[number]) for one, number in zip(splits, at, strict=True))
        yield [(answer, prompt) for answer, prompt in answers if answer.strip()]


def judging_prompts(judge: LlmJudge, answers: Iterable[Answers]) -> PromptSet:
    """What the judge is asked about these answers, each prompt once, in their order; kept in a temporary file.

    Raises:
        TraceStoreError: the folder for temporary files cannot be written.
    """
    try:
        table = mapped_table(PROMPT_SCHEMA, _once(judge, answers))
    except OSError as error:
        raise TraceStoreError(
            f"cannot write what is to be judged to {tempfile.gettempdir()}: {reason_of(error)}: free space there, or "
            "set TMPDIR to a folder with more"
        ) from error
    return PromptSet(table, DROPPED_SCHEMA.empty_table(), {})


def example_answers(prompts: pa.Table) -> list[Answers]:
    """An answer to each prompt that no teacher gave, to look at what a judge will be asked."""
    return [[(EXAMPLE, prompt) for prompt in table_to_prompts(prompts)]]


def _once(judge: LlmJudge, answers: Iterable[Answers]) -> Iterator[pa.RecordBatch]:
    seen: set[str] = set()
    for some in answers:
        asked = {prompt.prompt_id: prompt for prompt in (judge_prompt(judge, *answer) for answer in some)}
        yield from prompts_to_table(prompt for name, prompt in asked.items() if name not in seen).to_batches()
        seen |= asked.keys()
