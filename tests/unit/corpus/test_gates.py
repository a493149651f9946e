from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.gates import failed_gates
from distill_data.corpus.manifest import Manifest
from distill_data.filters import DROP_REASONS
from distill_data.gates_config import REASONS, Gates

MakeJob = Callable[..., Assembly]
JUDGED: dict[str, Any] = {"judge": {"verifier": "exact"}, "keep": {"passed_only": True}}


@pytest.fixture
def manifest(make_job: MakeJob) -> Manifest:
    """40 traces: 18 kept, 20 failed the verifier, 2 were cut."""
    return assemble(make_job(**JUDGED), lambda progress: None)


def with_statistics(manifest: Manifest, **changes: float) -> Manifest:
    return manifest.model_copy(update={"version": 7, "statistics": {**manifest.statistics, **changes}})


def test_the_reasons_of_the_config_are_those_of_the_filters() -> None:
    assert set(REASONS) == set(DROP_REASONS)


PASSED: list[dict[str, Any]] = [
    {"min_rows": 18}, {"min_pass_rate": 0.5}, {"max_dropped": {"truncated": 0.05, "failed_verifier": 0.5}},
    {"max_dropped": {"leakage": 0.0}},
]  # fmt: skip


@pytest.mark.parametrize("gates", PASSED)
def test_a_version_at_the_very_threshold_passes(manifest: Manifest, gates: dict[str, Any]) -> None:
    assert failed_gates(Gates.model_validate(gates), manifest, None) == []


FAILED: list[tuple[dict[str, Any], list[str]]] = [
    ({"min_rows": 19}, ["min_rows: 18 rows, at least 19 are asked for"]),
    ({"min_pass_rate": 0.51}, ["min_pass_rate: 50.0% of judged traces passed, at least 51.0% is asked for"]),
    ({"max_dropped": {"truncated": 0.049, "failed_verifier": 0.4}},
     ["max_dropped.truncated: 5.00% of 40 rows, at most 4.90% is allowed",
      "max_dropped.failed_verifier: 50.00% of 40 rows, at most 40.00% is allowed"]),
]  # fmt: skip


@pytest.mark.parametrize(("gates", "lines"), FAILED)
def test_a_failed_gate_is_a_line_with_both_values(manifest: Manifest, gates: dict[str, Any], lines: list[str]) -> None:
    assert failed_gates(Gates.model_validate(gates), manifest, None) == lines


def test_a_pass_rate_is_asked_for_where_nothing_was_judged(make_job: MakeJob) -> None:
    manifest = assemble(make_job(), lambda progress: None)
    (line,) = failed_gates(Gates(min_pass_rate=0.1), manifest, None)
    assert line == "min_pass_rate: nothing was judged, at least 10.0% is asked for"


def test_drift_is_measured_against_the_version_promoted_before(manifest: Manifest) -> None:
    gates = Gates(max_length_drift=0.2, max_logprob_drift=0.1)
    length, logprob = manifest.statistics["completion_tokens_mean"], manifest.statistics["mean_logprob"]
    assert length is not None and logprob is not None
    assert failed_gates(gates, manifest, None) == []
    near = with_statistics(manifest, completion_tokens_mean=length / 1.19, mean_logprob=logprob + 0.09)
    assert failed_gates(gates, manifest, near) == []
    for factor, away in ((1.21, -0.11), (0.79, 0.11)):
        far = with_statistics(manifest, completion_tokens_mean=length / factor, mean_logprob=logprob - away)
        assert failed_gates(gates, manifest, far) == [
            f"max_length_drift: completions of {length:,.1f} tokens, {length / factor:,.1f} in v7: 21.0%, at most "
            "20.0% is allowed",
            f"max_logprob_drift: {logprob:.3f} nats per token, {logprob - away:.3f} in v7: 0.110, at most 0.1 is "
            "allowed",
        ]


def test_gates_are_in_no_manifest_and_in_no_digest(make_job: MakeJob, manifest: Manifest) -> None:
    gated = make_job(**JUDGED, gates={"min_rows": 5})
    assert gated.config.gates is not None
    assert gated.digest == manifest.digest and "gates" not in manifest.config
    assert assemble(gated, lambda progress: None).version == manifest.version
