"""Drop rules: which traces stay out of a corpus, and why."""

from distill_data.filters.rules import DROP_REASONS, drop_reasons

__all__ = ["DROP_REASONS", "drop_reasons"]
