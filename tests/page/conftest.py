"""Versions to make pages of, and a real Chromium to look at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill_data.corpus.assemble import Assembly, assemble
from distill_data.corpus.read import Corpus, open_corpus
from distill_data.page import write_page
from distill_data.records import Prompt, Trace
from tests.page.browser import Browser
from tests.unit.corpus.conftest import failed_trace, make_job, make_labels, make_trace

__all__ = ["make_job"]

MakeJob = Callable[..., Assembly]
SAMPLES = 6
HOSTILE = (
    "</script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><!--{{ 7 * 7 }}"
)


def decode(ids: np.ndarray) -> list[str]:
    """A text for every id; some are hard to show."""
    special = {0: "\n", 1: HOSTILE, 2: "<|im_end|>", 3: ""}
    return [special.get(number, f" w{number}") for number in ids.tolist()]


def sources(hostile: bool) -> list[str]:
    return ["sums", "algebra", f"words {HOSTILE}" if hostile else "word problems"]


def prompts(hostile: bool) -> list[Prompt]:
    names = sources(hostile)
    ending = f" {HOSTILE}" if hostile else ""
    return [
        Prompt([{"role": "user", "content": f"What is {n} + 1?{ending}"}], names[n % 3], str(n + 1), {"n": n})
        for n in range(24)
    ]


def completed(prompt: Prompt, number: int, sample: int, hostile: bool) -> Trace:
    """Prompt n passes in n % 7 of its 6 samples; the others are wrong, cut, unfinished, empty or failed."""
    tokens = 20 + (number * 37 + sample * 101) % 300
    passes = sample < number % (SAMPLES + 1)
    thought = f"add 1 to it, {HOSTILE}" if hostile else "add 1 to it\n" * (1 + sample)
    answer = f"The sum.\nAnswer: {prompt.reference}" if passes else "no idea"
    said = f"<think>\n{thought}\n</think>\n\n{answer}"
    changes = {}
    if not passes and sample == 5:
        changes = {"finish_reason": "length"}
    if not passes and sample == 4:
        said = "<think>\nhm" if number % 2 else f"<think>\n{thought}\n</think>\n"
    if number == 0 and sample == 3:
        return failed_trace(prompt, sample)
    ids = np.random.default_rng(number * 10 + sample).integers(0, 400, tokens).astype(np.int32)
    labels = make_labels(number * 10 + sample, tokens)
    return replace(make_trace(prompt, sample, said), completion_token_ids=ids, soft_labels=labels, **changes)


def make_corpus(make: MakeJob, root: Path, hostile: bool = False) -> None:
    asked = prompts(hostile)
    traces = [
        completed(prompt, number, sample, hostile) for number, prompt in enumerate(asked) for sample in range(SAMPLES)
    ]
    dropped = [
        {"prompt_id": "0" * 24, "source": "sums", "messages": asked[0].messages, "drop_reason": "duplicate_prompt"}
    ]
    job = make(
        asked,
        traces,
        root=root,
        dropped=dropped,
        judge={"verifier": "exact"},
        keep={"passed_only": True},
        teacher={"reasoning": {"answer_pattern": r"Answer: (\d+)"}},
    )
    assemble(of_sources(job, sources(hostile)), lambda progress: None)


def of_sources(job: Assembly, names: list[str]) -> Assembly:
    """The same job, its prompts from several sources."""
    configured = [job.config.prompts[0].model_copy(update={"name": name}) for name in names]
    return replace(
        job,
        config=job.config.model_copy(update={"prompts": configured}),
        prompts=replace(job.prompts, revisions={name: {"sha256": "5a"} for name in names}),
    )


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where versions and pages lie that many tests look at; they change nothing in it."""
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def corpus(make_job: MakeJob, folder: Path) -> Corpus:
    if not (folder / "plain").exists():
        make_corpus(make_job, folder / "plain")
    return open_corpus("sums@v1", folder / "plain")


@pytest.fixture
def hostile_corpus(make_job: MakeJob, folder: Path) -> Corpus:
    """Prompts, thoughts, a source and tokens that are markup."""
    if not (folder / "hostile").exists():
        make_corpus(make_job, folder / "hostile", hostile=True)
    return open_corpus("sums@v1", folder / "hostile")


@pytest.fixture
def page(corpus: Corpus, folder: Path) -> Path:
    """The page of `corpus` with token probabilities."""
    path = folder / "page.html"
    if not path.exists():
        write_page(corpus, path, decode)
    return path


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without one these tests fail in CI and are left out elsewhere."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        message = "no Chromium: install it (Debian: apt install chromium)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with Browser.started(executable) as started:
        yield started
