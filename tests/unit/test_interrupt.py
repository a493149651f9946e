from __future__ import annotations

import signal
import subprocess
import sys
import time

import psutil
import pytest

# A parent with a child that is asked to end and takes its time, as a worker does that commits to a slow disk.
PARENT = """
import subprocess, sys, time
from distill_data.interrupt import leave_on_interrupt
leave_on_interrupt(lambda: print("left", flush=True))
child = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(SECONDS), exit())); print('up', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", child.replace("SECONDS", sys.argv[1])])
time.sleep(600)
"""  # noqa: E501


def start(seconds: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    command = [sys.executable, "-c", PARENT, str(seconds)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None and parent.stdout.readline() == "up\n"
    (child,) = psutil.Process(parent.pid).children()
    return parent, child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_what_is_being_committed(number: signal.Signals) -> None:
    parent, child = start(seconds=1.0)
    parent.send_signal(number)
    assert parent.communicate(timeout=30)[0] == "left\n"
    assert parent.returncode == 1 and not child.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_one_ends_at_once(number: signal.Signals) -> None:
    parent, child = start(seconds=500.0)
    parent.send_signal(number)
    time.sleep(1.0)
    assert parent.poll() is None and child.is_running()
    parent.send_signal(number)
    assert parent.communicate(timeout=10)[0] == ""
    assert parent.returncode == 1
    child.wait(10)
