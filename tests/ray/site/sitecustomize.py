"""Loaded by every Python of a test's Ray cluster; changes only teacher workers.

They load the tokenizer without transformers, so that a start takes a second, write down what they finish, and run the
code that the test has left in the file that IN_WORKERS names.
"""

import os
import sys
from pathlib import Path

if "distill_data.teachers.worker_process" in sys.orig_argv:
    from tests.benchmarks.hooks.imports import after_import
    from tests.benchmarks.hooks.quick_tokenizer import load_quickly

    def record_finished(replay):
        step = replay.ReplayTeacher.step

        def step_and_record(self):
            done = step(self)
            ids = [completion.request_id for completion in done if completion.request_id != "proof"]
            with Path(os.environ["FINISHED"]).open("a") as file:
                file.writelines(f"{request}\n" for request in ids)
            return done

        replay.ReplayTeacher.step = step_and_record

    file = Path(os.environ["IN_WORKERS"])
    code = file.read_text() if file.exists() else ""
    if code != "# with the real tokenizer":
        after_import("distill_data.models", load_quickly)
    after_import("distill_data.teachers.replay", record_finished)
    exec(code)
