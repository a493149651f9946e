"""Inputs without content, which the teacher is asked about like any other: they show which label it prefers anyway.

They are prompts of the source whose instructions they come with, so that they are planned, scored, stored and read
again as all others are; a version drops them by the name `content_free`.
"""

# pyarrow.compute makes its functions at import, where pyright cannot see them.
# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.prompts.prompt_set import PromptSet
from distill_data.records import PROMPT_SCHEMA, Prompt, prompts_to_table


def content_free_prompts(settings: Config) -> list[Prompt]:
    """One for each of `teacher.calibrate_on` and each system prompt of a source, in the config's order."""
    first = {source.system_prompt: source.label for source in reversed(settings.prompts)}
    systems = dict.fromkeys(source.system_prompt for source in settings.prompts)
    return [
        Prompt(
            [*([] if system is None else [{"role": "system", "content": system}]), {"role": "user", "content": text}],
            first[system],
            metadata={"content_free": True},
        )
        for system in systems
        for text in settings.teacher.calibrate_on
    ]


def with_content_free(prompts: PromptSet, settings: Config) -> PromptSet:
    """The prompts, and those without content that are not among them."""
    added = prompts_to_table(content_free_prompts(settings))
    known = pc.is_in(added["prompt_id"], value_set=prompts.table["prompt_id"].combine_chunks())
    new = added.filter(pc.invert(known))
    return replace(prompts, table=pa.concat_tables([prompts.table, new])) if len(new) else prompts


def is_content_free(prompts: PromptSet, settings: Config) -> np.ndarray:
    """Which prompts are inputs without content, also where a source brings one: bool [prompts]."""
    ids = pa.array(
        [prompt.prompt_id for prompt in content_free_prompts(settings)], PROMPT_SCHEMA.field("prompt_id").type
    )
    return pc.is_in(prompts.table["prompt_id"], value_set=ids).to_numpy()
