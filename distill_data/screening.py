"""A config's prompts, screened before the teacher is asked: none with text of a benchmark, none that came before.

What is dropped here costs no teacher token, and is in `rejected/` with the benchmark or the prompt that it is like.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.corpus.versions import find_version, parse_reference
from distill_data.dedup_config import Decontaminate, Deduplicate
from distill_data.errors import InputError
from distill_data.filters.benchmark_texts import load_benchmarks
from distill_data.filters.decontamination import counts_by_benchmark, details
from distill_data.filters.near_duplicates import alike_groups, first_alike
from distill_data.prompts import PromptSet, load_prompts
from distill_data.prompts.content_free import with_content_free
from distill_data.prompts.prompt_set import DROPPED_SCHEMA
from distill_data.records import Message

_MESSAGES_AT_ONCE = 4096


def prompts_of(settings: Config) -> PromptSet:
    """Read every prompt source of a config and screen what was read.

    Raises:
        InputError: a source or benchmark cannot be read, or no prompt is left.
        CorpusError: a corpus to compare with is not there.
    """
    settings = pinned(settings)
    read = screened(load_prompts(list(settings.prompts), settings.teacher.mode), settings)
    return with_content_free(read, settings)


def pinned(settings: Config) -> Config:
    """The config with the tags in `deduplicate.against` replaced by the versions that they name now.

    Raises:
        CorpusError: a corpus to compare with is not there.
    """
    against = settings.deduplicate.against
    names = [f"{parse_reference(one)[0]}@{find_version(settings.root, one).name}" for one in against]
    if names == against:
        return settings
    return settings.model_copy(update={"deduplicate": settings.deduplicate.model_copy(update={"against": names})})


def screened(prompts: PromptSet, settings: Config) -> PromptSet:
    """The prompts without those that `decontaminate` and `deduplicate` drop, groups joined as the latter says."""
    if settings.decontaminate.benchmarks:
        prompts = _without_benchmarks(prompts, settings)
    deduplicate = settings.deduplicate
    if deduplicate.against:
        prompts = _without_seen(prompts, deduplicate, settings.root)
    if deduplicate.prompts != "off":
        prompts = _without_near_duplicates(prompts, deduplicate)
    if not len(prompts.table):
        reasons = ", ".join(sorted(set(prompts.dropped["drop_reason"].to_pylist())))
        raise InputError(f"no prompt is left ({reasons}): loosen deduplicate: or decontaminate:, or give other prompts")
    return prompts


def _without_benchmarks(prompts: PromptSet, settings: Config) -> PromptSet:
    section = settings.decontaminate
    benchmarks, facts = load_benchmarks(section)
    touched = benchmarks.touched(_asked(prompts.table))
    touched = touched.filter(pc.greater(touched["share"], section.max_overlap))
    counts = counts_by_benchmark(touched)
    facts = {label: {**fact, "prompts": counts.get(label, 0)} for label, fact in facts.items()}
    return _dropped(replace(prompts, benchmarks=facts), "contaminated", details(touched, len(prompts.table)))


def contaminated_rows(corpus: Corpus, section: Decontaminate) -> tuple[int, str | None]:
    """How many rows of a version have an n-gram of a benchmark in what is asked or said; with the first such place.

    Raises:
        InputError: a benchmark cannot be read.
    """
    (benchmarks, _), rows, example = load_benchmarks(section), 0, None
    for split in corpus.splits:
        for batch in corpus.batches("traces", split, _MESSAGES_AT_ONCE):
            chats = batch["messages"].to_pylist()
            touched = [benchmarks.touched(_texts_of(chats, role)) for role in ("user", "assistant")]
            found = pa.concat_tables(touched).sort_by("row")
            rows += len(found["row"].unique())
            if example is None and len(found):
                first = found.slice(0, 1).to_pylist()[0]
                name = batch["trace_id"][first["row"]].as_py()
                example = f"trace {name} has '{first['example']}' of benchmark {first['benchmark']}"
    return rows, example


def _without_seen(prompts: PromptSet, section: Deduplicate, root: str) -> PromptSet:
    """Without prompts that are nearly the same as one of another corpus."""
    texts, names = [], []
    for reference in section.against:
        corpus = open_corpus(reference, root)
        for split in corpus.splits:
            for batch in corpus.batches("traces", split, _MESSAGES_AT_ONCE):
                texts.append(_texts_of(batch["messages"].to_pylist(), "user"))
                names += [f"{reference}, prompt {name}" for name in batch["prompt_id"].to_pylist()]
    first = first_alike(_asked(prompts.table), section.prompt_similarity, section.ngram, pa.chunked_array(texts))
    detail = [f"nearly the same as {names[-1 - row]}" if row < 0 else None for row in first.tolist()]
    return _dropped(prompts, "seen_in_other_corpus", pa.array(detail, pa.string()))


def _without_near_duplicates(prompts: PromptSet, section: Deduplicate) -> PromptSet:
    """Near-duplicates dropped or in one group; prompts with the same messages are one, and stay together either way."""
    groups = prompts.table["group_id"].combine_chunks()
    own = pc.index_in(groups, value_set=groups.unique()).to_numpy()
    firsts = np.unique(own, return_index=True)[1]
    texts = _asked(prompts.table.select(["messages"]).take(pa.array(firsts)))
    if section.prompts == "group":
        joined = alike_groups(texts, section.prompt_similarity, section.ngram)
        ids = groups.take(pa.array(firsts[joined[own]]))
        place = prompts.table.schema.get_field_index("group_id")
        return replace(prompts, table=prompts.table.set_column(place, "group_id", ids))
    first = first_alike(texts, section.prompt_similarity, section.ngram)[own]
    like = pc.binary_join_element_wise(
        "nearly the same as prompt ", prompts.table["prompt_id"].take(pa.array(firsts[first])).combine_chunks(), ""
    )
    return _dropped(prompts, "near_duplicate_prompt", pc.if_else(pa.array(first != own), like, None))


def _dropped(prompts: PromptSet, reason: str, details: pa.Array) -> PromptSet:
    """The prompts without those that have a detail, which are among the dropped with this reason."""
    kept = pc.is_null(details)
    gone = prompts.table.filter(pc.invert(kept))
    gone = gone.append_column("drop_reason", pa.array([reason] * len(gone), pa.string()))
    gone = gone.append_column("drop_detail", details.drop_null()).cast(DROPPED_SCHEMA)
    return replace(prompts, table=prompts.table.filter(kept), dropped=pa.concat_tables([prompts.dropped, gone]))


def _asked(prompts: pa.Table) -> pa.ChunkedArray:
    """What the user says in each prompt."""
    return pa.chunked_array(list(_chunks(prompts)), pa.string())


def _chunks(prompts: pa.Table) -> Iterator[pa.Array]:
    for batch in prompts.select(["messages"]).to_batches(max_chunksize=_MESSAGES_AT_ONCE):
        yield _texts_of(batch["messages"].to_pylist(), "user")


def _texts_of(chats: list[list[Message]], role: str) -> pa.Array:
    said = ("\n".join(one["content"] for one in chat if one["role"] == role) for chat in chats)
    return pa.array(said, pa.string())
