"""Everything that the page shows and the manifest does not say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import Corpus
from distill_data.page.examples import CUTS, KEPT_SHOWN, Row, kept_row, rejected_rows
from distill_data.page.histogram import Histogram, histogram, measured
from distill_data.page.rates import Rates, rates
from distill_data.page.sampling import SampledRows, choose_rows, sampled_rows
from distill_data.page.scan import Scan, scan
from distill_data.page.tokens import TokenTally


@dataclass(frozen=True)
class Gathered:
    """What was read from a version's files."""

    scan: Scan
    rates: Rates | None
    histograms: list[Histogram]
    measures: list[Histogram]
    kept: list[Row]
    rejected: list[Row]
    tokens: int
    """Completion tokens whose distributions were read."""


def gather(corpus: Corpus) -> Gathered:
    """Read a version once, its soft labels in part where there are many; the same version gives the same.

    Raises:
        CorpusError: a file is missing or does not have the manifest's sha256.
    """
    traces = {split: corpus.row_groups("traces", split) for split in corpus.splits}
    dropped = corpus.row_groups("rejected", "rejected")
    found = scan([group for groups in traces.values() for group in groups], dropped)
    order = {reason: found.rejected[reason] for reason in corpus.manifest.dropped if reason in found.rejected}
    tally, kept = _read_sample(corpus, sampled_rows(corpus, traces))
    return Gathered(
        scan=found,
        rates=rates(found.prompts),
        histograms=[*_trace_histograms(found), *tally.histograms(_which(tally.tokens, corpus.manifest))],
        measures=[measured(facts) for facts in corpus.manifest.measures if len(facts.edges) > 1],
        kept=kept,
        rejected=rejected_rows(dropped, order),
        tokens=tally.tokens,
    )


def _read_sample(corpus: Corpus, sample: list[SampledRows]) -> tuple[TokenTally, list[Row]]:
    """Figures of the sampled tokens, and the kept rows to show in their order."""
    ranks = choose_rows(sample, KEPT_SHOWN)
    tally, shown = TokenTally(corpus.draws), {}
    for place, rows in enumerate(sample):
        for start, traces, labels in rows.pairs():
            tally.add(labels)
            for row in range(len(traces)):
                if (rank := ranks.get((place, start + row))) is not None:
                    shown[rank] = kept_row(traces, labels, row, rows.split, CUTS[0].tokens)
    return tally, [shown[rank] for rank in sorted(shown)]


def _trace_histograms(found: Scan) -> list[Histogram]:
    sides = {"kept": found.kept, "dropped": ~found.kept}
    return [
        histogram(
            "Completion length",
            "completion tokens",
            {name: found.lengths[side] for name, side in sides.items()},
            whole=True,
        ),
        histogram(
            "Mean log-probability of the sampled tokens",
            "nats per token",
            {name: found.logprobs[side].astype(np.float64) for name, side in sides.items()},
        ),
    ]


def _which(tokens: int, manifest: Manifest) -> str:
    total = int(manifest.statistics["completion_tokens_total"] or 0)
    if tokens >= total:
        return f"all {tokens:,} completion tokens of kept rows"
    return f"{tokens:,} of {total:,} completion tokens of kept rows: the first rows of row groups chosen by hash"
