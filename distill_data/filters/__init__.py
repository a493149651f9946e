"""Drop rules: which traces stay out of a corpus, and why."""

from distill_data.filters.alike_samples import SAMPLE_REASONS
from distill_data.filters.decontamination import CONTAMINATION_REASONS, RECITAL_REASONS
from distill_data.filters.mixing import MIX_REASONS
from distill_data.filters.near_duplicates import PROMPT_REASONS
from distill_data.filters.rules import ENDED_REASONS, JUDGED_REASONS, drop_reasons
from distill_data.filters.selection import SELECTION_REASONS
from distill_data.filters.thresholds import CONTENT_REASONS

DROP_REASONS = {
    **PROMPT_REASONS,
    **CONTAMINATION_REASONS,
    **ENDED_REASONS,
    **RECITAL_REASONS,
    **CONTENT_REASONS,
    **JUDGED_REASONS,
    **SAMPLE_REASONS,
    **SELECTION_REASONS,
    **MIX_REASONS,
}
"""Every reason why a prompt or trace is dropped, with one line for the dataset card, in the order of looking."""

__all__ = ["DROP_REASONS", "drop_reasons"]
