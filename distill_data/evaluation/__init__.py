"""Teacher, student and baselines on the same held-out prompts: who is asked what (`entrants`, `asked`), what they say
(`answers`, `held_out`, `harness`), what they cost (`cost`), how sure all that is (`statistics`), and how it is shown
(`findings`, `table`, `page`). Answers go to the trace store, as a teacher's do: none is generated twice.
"""
