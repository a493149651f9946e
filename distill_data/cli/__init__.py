"""The command line."""

from distill_data.cli.entry import app, main

__all__ = ["app", "main"]
