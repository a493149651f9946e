"""Does anything finished get lost or made twice? SIGKILL at random moments, of the flow's process or of its worker.

Builds with the replay teacher are killed again and again, run again each time, and at last compared with a build that
nobody disturbed. Every request that goes into an engine is recorded, so that what a kill costs is known exactly.

    .venv/bin/python -m tests.benchmarks.kills --kills 200 --seed 0
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import psutil

from distill_data.build import BuildPlan, assemble_version
from distill_data.part_file import open_part
from distill_data.teachers.worker import WINDOW
from tests.benchmarks.hooks import environment
from tests.benchmarks.report import PROJECT, Result, parser, publish
from tests.pool.replay_job import committed, make_config, plan, wanted, write_prompts
from tests.tiny_model import make_tiny_model

KILLS_PER_BUILD = 10
PROMPTS = 400  # with 2 samples each: 100 parts
FLUSH_ROWS = 8
WINDOWS = [4, 1, 2]  # max_num_seqs of builds, in turn
PATIENCE = 120.0  # seconds that anything may take

BUILD = """
import sys
from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.config_file import load_config
from distill_data.prompts import load_prompts
settings = load_config(sys.argv[1])
plan = plan_build(settings, load_prompts(list(settings.prompts)))
if len(plan.plan.missing):
    plan, _ = generate_missing(plan, lambda _: None)
assemble_version(plan, lambda _: None)
"""


@dataclass(frozen=True)
class Kill:
    """One kill and what it cost."""

    victim: str  # `flow` or `worker`
    parts: int  # that were committed by then
    lost: int  # traces that an engine had begun or finished and that no part holds


@dataclass
class Killed:
    """A build and the processes that work on it."""

    config: Path
    build: BuildPlan
    started: Path  # every request that went into an engine, one a line
    errors: Path  # what the flow's process says at its end
    flow: subprocess.Popen[bytes] = field(init=False)
    kills: list[Kill] = field(default_factory=list)
    _accounted: int = 0  # bytes of `started`
    _stored: dict[str, set[str]] = field(default_factory=dict)  # traces by part

    @property
    def bound(self) -> int:
        """What one kill may cost: a part on its way, the next one, and what is in the engine."""
        return 2 * FLUSH_ROWS + int(WINDOW * self.build.config.teacher.engine.max_num_seqs)

    def start(self) -> None:
        """Run the build (again)."""
        self.flow = subprocess.Popen(
            [sys.executable, "-c", BUILD, str(self.config)],
            cwd=PROJECT,
            env=environment("kills", DISTILL_DATA_STARTED=str(self.started)),
            stderr=self.errors.open("ab"),
        )

    def ended(self) -> bool:
        """Whether the flow's process is gone; it may only have given up because its workers were killed too often."""
        status = self.flow.poll()
        if status == 1 and "the teacher's workers keep dying" not in (said := self.errors.read_text()):
            raise AssertionError(f"the build failed by itself: {said[-2000:]}")
        return status is not None

    def worker(self) -> psutil.Process | None:
        """The worker's process, if there is one now."""
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.flow.pid).children():
                with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if "distill_data.teachers.worker_process" in child.cmdline():
                        return child
        return None

    def kill(self, victim: str) -> None:
        """Kill one process; where the flow's is killed, the build is run again while its worker still commits."""
        worker, parts = self.worker(), len(self.build.store.parts())
        if worker is None:
            victim = "flow"
        if victim == "flow":
            self.flow.kill()
            self.flow.wait()
            self.start()
        elif worker is not None:
            worker.send_signal(signal.SIGKILL)
        wait_until(lambda: worker is None or not _alive(worker))
        self.kills.append(Kill(victim, parts, len(self._begun() - self._in_parts())))
        assert self.kills[-1].lost <= self.bound, f"{self.kills[-1]} cost more than {self.bound}"

    def _begun(self) -> set[str]:
        """Traces that went into an engine since this was last asked."""
        text = self.started.read_bytes()[self._accounted :] if self.started.exists() else b""
        self._accounted += len(text)
        return {line.rpartition("-")[0] for line in text.decode().splitlines() if line != "proof"}

    def _in_parts(self) -> set[str]:
        store = self.build.store
        for name in set(store.parts()) - self._stored.keys():
            self._stored[name] = {f"{prompt}-{sample}" for prompt, sample in store.keys_of(name)[1]}
        return set().union(*self._stored.values())

    def check(self, digest: str) -> None:
        """Exactly what was wanted is there, once, whole, and as if nothing had happened."""
        store = self.build.store
        assert committed(store) == wanted(self.build), "not every trace is there exactly once"
        for name in store.parts():
            open_part(store.folder / name)
        assert assemble_version(self.build, lambda _: None)[0].digest == digest, "another corpus"
        begun = Counter(line for line in self.started.read_text().splitlines() if line != "proof").total()
        assert begun - wanted(self.build).total() == sum(kill.lost for kill in self.kills), "made again without a kill"


def kill_repeatedly(folder: Path, model: Path, kills: int, seed: int) -> list[Kill]:
    """Kill builds until `kills` kills are done; every build is brought to its end and checked.

    Raises:
        AssertionError: a promise is broken.
    """
    chance = random.Random(seed)
    prompts = write_prompts(folder / "prompts.jsonl", PROMPTS)
    digest = undisturbed(folder / "undisturbed", model, prompts)
    done: list[Kill] = []
    while len(done) < kills:
        number = len(list(folder.glob("build-*")))
        killed = make_build(folder / f"build-{number}", model, prompts, WINDOWS[number % len(WINDOWS)])
        torment(killed, min(KILLS_PER_BUILD, kills - len(done)), chance)
        killed.check(digest)
        done += killed.kills
        print(f"{len(done)} of {kills} kills", file=sys.stderr)
    return done


def undisturbed(root: Path, model: Path, prompts: Path) -> str:
    """The digest of the corpus where nothing goes wrong, with other sizes of parts and shards."""
    killed = make_build(root, model, prompts, 64, flush_rows=997, shard_size=311)
    killed.start()
    wait_until(killed.ended)
    assert killed.flow.returncode == 0, killed.errors.read_text()
    return assemble_version(killed.build, lambda _: None)[0].digest


def make_build(root: Path, model: Path, prompts: Path, max_num_seqs: int, **storage: Any) -> Killed:
    """A build in a folder of its own."""
    teacher = {"engine": {"max_num_seqs": max_num_seqs}, "prompt_format": "text"}
    storage = {"flush_rows": FLUSH_ROWS, "shard_size": 32, **storage}
    config = make_config(root, model, prompts, teacher=teacher, storage=storage)
    root.mkdir()
    (root / "config.yaml").write_text(config.model_dump_json(), encoding="utf-8")
    return Killed(root / "config.yaml", plan(config), root / "started.txt", root / "errors.txt")


def torment(killed: Killed, kills: int, chance: random.Random) -> None:
    """Run one build to its end, with at most so many kills on the way."""
    killed.start()
    while not (killed.ended() and killed.flow.returncode == 0):
        if killed.ended():
            killed.start()
        due = random_moment(killed, chance) if len(killed.kills) < kills else never
        wait_until(lambda due=due: killed.ended() or due())
        if not killed.ended():
            killed.kill(chance.choice(["flow", "worker"]))


def never() -> bool:
    """No moment."""
    return False


def random_moment(killed: Killed, chance: random.Random) -> Callable[[], bool]:
    """Once in four times some time from now, while processes start; else some parts from now, and a little later."""
    now = time.monotonic()
    if chance.random() < 0.25:
        at = now + chance.uniform(0.0, 2.0)
        return lambda: time.monotonic() >= at
    parts = len(killed.build.store.parts()) + chance.randint(1, 12)
    delay = chance.uniform(0.0, 0.02)
    reached: list[float] = []

    def due() -> bool:
        if not reached and len(killed.build.store.parts()) >= parts:
            reached.append(time.monotonic())
        return bool(reached) and time.monotonic() >= reached[0] + delay

    return due


def wait_until(happened: Callable[[], bool]) -> None:
    """Look again and again.

    Raises:
        AssertionError: it does not happen.
    """
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"nothing happened in {PATIENCE:g} s"
        time.sleep(0.002)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def result_of(kills: list[Kill], seconds: float, seed: int) -> Result:
    """The table: what kills cost, by victim."""
    groups = {name: [kill.lost for kill in kills if kill.victim == name] for name in ("flow", "worker")}
    groups = {name: lost for name, lost in {**groups, "all": [kill.lost for kill in kills]}.items() if lost}
    rows = [
        [name, str(len(lost)), str(sum(lost)), f"{mean(lost):.1f}", f"{median(lost):g}", str(max(lost))]
        for name, lost in groups.items()
    ]
    traces, bound = 2 * PROMPTS, 2 * FLUSH_ROWS + int(WINDOW * max(WINDOWS))
    return Result(
        name="kills",
        title="SIGKILL at random moments: what is made again",
        headline=f"{len(kills)} SIGKILLs: nothing lost, nothing twice, the digest that of an undisturbed build; "
        f"a kill cost {mean(groups['all']):.1f} traces on average, {max(groups['all'])} at most (bound {bound}).",
        header=["killed", "times", "traces made again", "mean", "median", "most"],
        rows=rows,
        figures={
            "seed": seed,
            "kills": len(kills),
            "traces_per_build": traces,
            "flush_rows": FLUSH_ROWS,
            "bound_per_kill": bound,
            "seconds_per_kill": seconds / len(kills),
            "made_again": {
                name: {"kills": len(lost), "total": sum(lost), "most": max(lost)} for name, lost in groups.items()
            },
            "each": [[kill.victim, kill.parts, kill.lost] for kill in kills],
        },
        note=f"After every build, killed up to {KILLS_PER_BUILD} times: its {traces} traces exactly once, every part "
        f"whole, the corpus digest that of an undisturbed build. flush_rows {FLUSH_ROWS}: a kill may cost "
        f"{2 * FLUSH_ROWS} traces and the window. {seconds / len(kills):.1f} s a kill, seed {seed}.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        model = make_tiny_model(Path(name) / "model")
        began = time.monotonic()
        kills = kill_repeatedly(Path(name), model, chosen.kills, chosen.seed)
        publish(result_of(kills, time.monotonic() - began, chosen.seed), chosen.out)


if __name__ == "__main__":
    main()
