"""distill-data."""
