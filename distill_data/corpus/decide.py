"""The first pass of an assembly: judge and filter every trace, then choose among a prompt's traces.

Only the columns that the config looks at are read from the store, a few thousand rows of whole prompts at a time; one
row of small values a trace is kept until all are decided. Bytes that no column's checksum covers are looked at by the
second pass, which reads every part whole.
"""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config, Validation
from distill_data.corpus.alike import drop_alike
from distill_data.corpus.assembly import Assembly, AssemblyProgress, Progress, rows_of, split_part, whole_prompts
from distill_data.corpus.judging import Judging
from distill_data.corpus.label_measures import LabelMeasures
from distill_data.corpus.measures import MeasureSample
from distill_data.filters import drop_reasons
from distill_data.filters.decontamination import counts_by_benchmark, details
from distill_data.filters.mixing import mixed
from distill_data.filters.selection import select_traces
from distill_data.filters.shingles import HashedTexts
from distill_data.filters.thresholds import columns as measured_columns
from distill_data.filters.thresholds import content_reasons, label_measures, measure_all
from distill_data.identity import unit_hash
from distill_data.reasoning import Split, final_answer

_LIGHT_COLUMNS = ["completion", "prompt_suffix", "finish_reason", "error", "error_detail", "mean_logprob"]
_LABEL_COLUMNS = ["sampled_logprobs"]  # more, where the teacher classified
_SELECTED_BY = ["mean_logprob", "has_reference", "final_answer"]


@dataclass(frozen=True)
class Decisions:
    """`table`: where every trace is (prompt_row, sample_index, part, row, completion_tokens), score, passed,
    drop_reason and drop_detail. `measures`: what the filters measured, of some of them. `recited`: how many traces
    hold text of each benchmark.

    Score and passed are null where nothing was judged; drop_reason is null for a kept trace.
    """

    table: pa.Table
    measures: MeasureSample
    recited: Counter[str]


def decide(job: Assembly, on_progress: Progress) -> Decisions:
    """Judge and filter every trace, then choose among each prompt's."""
    total = len(job.finished)
    sample, recited = MeasureSample(total), Counter[str]()
    passed = judged = 0
    with Judging(job) as judging:
        pieces = [_decided(job, judging, (sample, recited), job.finished.slice(0, 0))]
        for part in whole_prompts(job.finished):
            pieces.append(_decided(job, judging, (sample, recited), rows_of(job.finished, part)))
            verdicts = pieces[-1]["passed"].drop_null()
            passed, judged = passed + (pc.sum(verdicts).as_py() or 0), judged + len(verdicts)
            on_progress(AssemblyProgress("judge", part.stop, total, passed / judged if judged else None))
    table = pa.concat_tables(pieces)
    reasons = select_traces(table, job.config.keep)
    if job.config.mix is not None:
        sources, groups = (job.prompts.table[name].combine_chunks() for name in ("source", "group_id"))
        reasons = mixed(reasons, table["prompt_row"].to_numpy(), sources, groups, job.config.mix)
    table = table.set_column(table.schema.get_field_index("drop_reason"), "drop_reason", reasons)
    return Decisions(table.drop_columns([name for name in _SELECTED_BY if name in table.column_names]), sample, recited)


def held_out(group_ids: pa.Array, validation: Validation) -> np.ndarray:
    """Which of the kept groups are held out (bool [groups]): those whose hash under the seed is below the fraction.

    A group is all prompts with the same messages, however they are sampled and whatever completion is scored; its id
    is there once. With two groups or more, neither side stays empty: the one with the smallest hash is held out, the
    one with the largest is not.
    """
    away = np.zeros(len(group_ids), bool)
    if validation.fraction == 0.0 or not len(group_ids):
        return away
    ids = (group.as_py() for group in group_ids)
    hashes = np.fromiter((unit_hash(validation.seed, group) for group in ids), np.float64, len(group_ids))
    table = pa.table({"hash": hashes, "group": group_ids})
    order = pc.sort_indices(table, sort_keys=[("hash", "ascending"), ("group", "ascending")]).to_numpy()
    chosen = int((hashes < validation.fraction).sum())
    away[order[: min(max(chosen, 1), len(order) - 1)]] = True
    return away


def is_held_out(decisions: pa.Table, group_ids: pa.ChunkedArray, validation: Validation) -> pa.Array:
    """Per kept row, whether its prompt's group is held out."""
    groups = group_ids.take(decisions["prompt_row"]).combine_chunks().dictionary_encode()
    return pa.array(held_out(groups.dictionary, validation)[groups.indices.to_numpy()])


def _decided(job: Assembly, judging: Judging, seen: tuple[MeasureSample, Counter[str]], rows: pa.Table) -> pa.Table:
    """Rows of `finished`, each with its verdict, its own drop reason and what a choice among a prompt's looks at."""
    config = job.config
    labels = _LABEL_COLUMNS if job.labelling is not None else []
    part = job.store.read(rows.select(["part", "row"]), [*_LIGHT_COLUMNS, *labels])
    splits = _answers(job, rows, part)
    answers = [split.answer for split in splits]
    verdicts = judging.verdicts(rows, answers)
    outcome = _outcome(job, rows, part, splits).append_column("has_judge", judging.has_judge(rows))
    measures = measure_all(outcome, config.filters)
    seen[0].add(measures, len(rows))
    texts = _hashed(job, part["completion"])
    recitals = _recitals(job, part["completion"], texts, seen[1])
    contents = _contents(measures, recitals, config)
    if job.labelling is not None:
        without = pa.array(job.labelling.content_free[rows["prompt_row"].to_numpy()])
        contents = pc.if_else(without, "content_free", contents)
    reasons = _drop_reasons(outcome, verdicts, contents, config)
    decided = rows.drop_columns(["content_digest", "error"])
    columns = {
        "score": verdicts["score"].cast(pa.float32()),
        "passed": verdicts["passed"],
        "drop_reason": reasons,
        "drop_detail": pc.case_when(
            pc.make_struct(pc.equal(reasons, "verifier_error"), pc.equal(reasons, "recited_benchmark")),
            verdicts["verdict_error"],
            recitals,
            part["error_detail"],
        ),
        "mean_logprob": part["mean_logprob"],
        **_votes(job, rows, answers),
    }
    for name, column in columns.items():
        decided = decided.append_column(name, column)
    return drop_alike(job, decided, texts) if config.deduplicate.samples == "drop" else decided


def _answers(job: Assembly, rows: pa.Table, part: pa.Table) -> list[Split]:
    """What every trace says, thinking apart; of a teacher that classified, the likeliest label."""
    if job.labelling is None:
        return split_part(part, job.split)
    prompts = job.prompts.take(rows["prompt_row"].to_numpy())
    return job.labelling.answers(job.labelling.probabilities(part, prompts))


def _outcome(job: Assembly, rows: pa.Table, part: pa.Table, splits: list[Split]) -> pa.Table:
    """What the filters look at: the part's own columns, the split text, the prompt and measures of labels if wanted."""
    outcome = part.append_column("thinking_finished", pa.array([split.finished for split in splits], pa.bool_()))
    outcome = outcome.append_column("answer", pa.array([split.answer for split in splits], pa.string()))
    outcome = outcome.append_column("completion_tokens", rows["completion_tokens"])
    if "prompt" in measured_columns(job.config.filters):
        outcome = outcome.append_column("prompt", _last_user_messages(job, rows["prompt_row"].to_numpy()))
    for measure in label_measures(job.config.filters):
        values = LabelMeasures(job.config.root, job.store, measure).read(rows)
        outcome = outcome.append_column(measure.name, pa.array(values))
    return outcome


def _last_user_messages(job: Assembly, prompt_rows: np.ndarray) -> pa.Array:
    asked, at = np.unique(prompt_rows, return_inverse=True)
    chats = job.prompts.take(asked)["messages"].to_pylist()
    last = [next((one["content"] for one in reversed(chat) if one["role"] == "user"), "") for chat in chats]
    return pa.array(last, pa.string()).take(pa.array(at))


def _hashed(job: Assembly, completions: pa.ChunkedArray) -> HashedTexts:
    """What completions say, to be compared with benchmarks and with each other; of none where nothing is."""
    compared = job.benchmarks is not None or job.config.deduplicate.samples == "drop"
    return HashedTexts.of(completions.combine_chunks() if compared else pa.array([], pa.string()))


def _recitals(job: Assembly, completions: pa.ChunkedArray, texts: HashedTexts, recited: Counter[str]) -> pa.Array:
    """What of a benchmark every completion says, null where it says nothing; counted by benchmark."""
    if job.benchmarks is None:
        return pa.nulls(len(completions), pa.string())
    touched = job.benchmarks.recited(completions.combine_chunks(), job.config.decontaminate.max_trace_ngrams, texts)
    recited.update(counts_by_benchmark(touched))
    return details(touched, len(completions))


def _contents(measures: dict[str, np.ndarray], recitals: pa.Array, config: Config) -> pa.Array:
    """The first reason in what a trace says: benchmarks come before measures."""
    recites = pc.if_else(pc.is_valid(recitals), "recited_benchmark", pa.scalar(None, pa.string()))
    return pc.coalesce(recites, content_reasons(measures, config.filters)) if measures else recites


def _drop_reasons(outcome: pa.Table, verdicts: pa.Table, content: pa.Array, config: Config) -> pa.Array:
    """The first reason that holds: how it ended, what it says, what the judge says."""
    judged = outcome.append_column("passed", verdicts["passed"])
    judged = judged.append_column("verdict_error", verdicts["verdict_error"])
    return drop_reasons(judged, config.filters, config.keep, content)


def _votes(job: Assembly, rows: pa.Table, answers: list[str]) -> dict[str, pa.Array]:
    """What self-consistency counts: short answers without case and white space, and which prompts need no vote."""
    if job.config.keep.self_consistency is None:
        return {}
    references = job.prompts.table["reference"].take(rows["prompt_row"])
    short = pc.utf8_lower(pa.array(["".join(final_answer(answer).split()) for answer in answers], pa.string()))
    return {
        "has_reference": pc.is_valid(references).combine_chunks(),
        "final_answer": pc.if_else(pc.equal(short, ""), None, short),
    }
