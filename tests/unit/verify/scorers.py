"""Functions that a judge of the tests calls: they score, hang, die."""

from __future__ import annotations

import os
import signal
import time

from distill_data.records import Prompt


def by_word(answer: str, prompt: Prompt) -> float:
    """`hang`, `die`, `exit`, `raise`, `nothing`; else whether the answer is the reference."""
    match answer:
        case "hang":
            time.sleep(600)
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "raise":
            raise ValueError("no\nsuch answer")
        case "process":
            return float(os.getpid())
    return float(answer == prompt.reference)
