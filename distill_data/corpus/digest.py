"""The digest of a corpus version: what decides its rows, and nothing else."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from distill_data.config import Config
from distill_data.identity import sequence_digest
from distill_data.judge_config import Judge
from distill_data.records import SCHEMA_VERSION
from distill_data.teachers.vllm_reasoning import split_identity
from distill_data.verify import verifier_identity

_SLICE = 65_536


def corpus_digest(
    config: Config,
    prompts_digest: str,
    teacher_id: str,
    finished: pa.Table,
    benchmarks: Mapping[str, Mapping[str, Any]] | None = None,
    judged: Sequence[pa.Table] = (),
) -> str:
    """SHA-256 of everything that decides a version's rows.

    Args:
        config: its samples, reasoning, judge, keep, filters and validation count; its storage does not. The version of
            the judge's code counts too: an upgraded scorer gives new verdicts, and so a new version. So does vLLM's
            where one of its reasoning parsers splits, and what labels are called and calibrated on.
        prompts_digest: digest of the prompt set, in order.
        teacher_id: who answered.
        finished: columns prompt_row, sample_index, content_digest, in planned order. Parts and their rows,
            hence shards, machines and kills, change nothing.
        benchmarks: what prompts were compared with; the hashes of their texts count.
        judged: the same of what models that judge said, a table for each of them.
    """
    teacher = config.teacher
    own_judges = {source.label: source.judge for source in config.prompts if source.judge is not None}
    inputs = {
        "schema_version": SCHEMA_VERSION,
        "prompts": prompts_digest,
        "teacher_id": teacher_id,
        "samples": teacher.sampling.samples,
        **split_identity(teacher),
        "judge": _judge_identity(config.judge) if config.judge else None,
        "verifier": verifier_identity(config.judge) if config.judge else None,
        "keep": config.keep.model_dump(mode="json"),
        "filters": config.filters.model_dump(mode="json"),
        "validation": config.validation.model_dump(mode="json"),
    }
    if teacher.mode == "classify":
        inputs["labels"] = {"names": list(teacher.labels), "calibrate_on": teacher.calibrate_on}
    for name, section in (("deduplicate", config.deduplicate), ("decontaminate", config.decontaminate)):
        if not section.is_default:
            inputs[name] = section.model_dump(mode="json")
    if benchmarks:
        inputs["benchmarks"] = {label: facts["texts_sha256"] for label, facts in benchmarks.items()}
    if config.mix is not None:
        inputs["mix"] = config.mix.model_dump(mode="json")
    if own_judges:
        inputs["judges"] = {
            label: [_judge_identity(judge), verifier_identity(judge)] for label, judge in own_judges.items()
        }
    if judged:
        inputs["judged"] = [sequence_digest({"kind": "judged"}, _row_keys(table)) for table in judged]
    return sequence_digest(inputs, _row_keys(finished))


def _judge_identity(judge: Judge) -> dict[str, Any]:
    """A judge's section without how it is run; a model that judges is named by its teacher_id instead."""
    return judge.model_dump(mode="json", exclude={"processes", "teacher"})


def _row_keys(finished: pa.Table) -> Iterator[str]:
    """One `prompt_row-sample_index-content_digest` per row."""
    for start in range(0, len(finished), _SLICE):
        piece = finished.slice(start, _SLICE)
        numbers = [piece[column].cast(pa.string()) for column in ("prompt_row", "sample_index")]
        yield from pc.binary_join_element_wise(*numbers, piece["content_digest"], "-").to_pylist()
