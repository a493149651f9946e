"""The gates that a version must pass to be promoted. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from distill_data.corpus.manifest import Manifest
from distill_data.gates_config import Gates


def failed_gates(gates: Gates, manifest: Manifest, previous: Manifest | None) -> list[str]:
    """A line per gate that a version's manifest does not pass, each with both values; none: it passes.

    Args:
        gates: what is asked; `zero_contamination` is not looked at here, as no manifest tells it.
        manifest: of the version.
        previous: of the version that was promoted before; None: the first one drifts from nothing.
    """
    return [*_too_few(gates, manifest), *_too_many_dropped(gates, manifest), *_drifted(gates, manifest, previous)]


def _too_few(gates: Gates, manifest: Manifest) -> Iterator[str]:
    rows, rate = manifest.counts["kept"], manifest.statistics["pass_rate"]
    if gates.min_rows is not None and rows < gates.min_rows:
        yield f"min_rows: {rows:,} rows, at least {gates.min_rows:,} are asked for"
    if gates.min_pass_rate is not None and (rate is None or rate < gates.min_pass_rate):
        found = "nothing was judged" if rate is None else f"{rate:.1%} of judged traces passed"
        yield f"min_pass_rate: {found}, at least {gates.min_pass_rate:.1%} is asked for"


def _too_many_dropped(gates: Gates, manifest: Manifest) -> Iterator[str]:
    rows = manifest.counts["kept"] + manifest.counts["rejected"]
    for reason, most in gates.max_dropped.items():
        share = manifest.dropped.get(reason, 0) / rows
        if share > most:
            yield f"max_dropped.{reason}: {share:.2%} of {rows:,} rows, at most {most:.2%} is allowed"


def _drifted(gates: Gates, manifest: Manifest, previous: Manifest | None) -> Iterator[str]:
    if previous is None:
        return
    now, before, than = manifest.statistics, previous.statistics, f"v{previous.version}"
    length, old_length = now["completion_tokens_mean"] or 0, before["completion_tokens_mean"] or 0
    drift = abs(length - old_length) / max(old_length, 1)
    if gates.max_length_drift is not None and drift > gates.max_length_drift:
        yield (
            f"max_length_drift: completions of {length:,.1f} tokens, {old_length:,.1f} in {than}: {drift:.1%}, "
            f"at most {gates.max_length_drift:.1%} is allowed"
        )
    logprob, old_logprob = now["mean_logprob"] or 0, before["mean_logprob"] or 0
    drift = abs(logprob - old_logprob)
    if gates.max_logprob_drift is not None and drift > gates.max_logprob_drift:
        yield (
            f"max_logprob_drift: {logprob:.3f} nats per token, {old_logprob:.3f} in {than}: {drift:.3f}, "
            f"at most {gates.max_logprob_drift:g} is allowed"
        )
