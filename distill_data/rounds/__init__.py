"""The on-policy loop: the student answers, the teacher scores the answers, the student trains on them, again and again.

answers   what is to be scored: the student's answers, token by token, and the teacher's own where they are mixed in
jobs      the two builds and the training of a round, as jobs that builds and trainings know already
loop      one round after the other, each step found again where it is done
curve     the held-out curve, as JSON and as a table
"""

from distill_data.rounds.curve import RoundResult, RoundsReport, rounds_summary, write_curve
from distill_data.rounds.loop import Standing, Watch, begin, play_round, report_rounds

__all__ = [
    "RoundResult", "RoundsReport", "Standing", "Watch", "begin", "play_round", "report_rounds", "rounds_summary",
    "write_curve",
]  # fmt: skip
