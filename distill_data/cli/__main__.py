"""`python -m distill_data.cli`."""

from distill_data.cli.entry import main

main()
