"""The answer is a Python program, and tests that run in the sandbox say how right it is."""

from __future__ import annotations

import textwrap
from typing import Any

from distill_data.errors import ConfigError, InputError
from distill_data.records import Prompt
from distill_data.verify.sandbox import Limits, SandboxResult, check_sandbox, run_python

_PYTHON = {"python", "python3", "py"}


class CodeVerifier:
    """Runs the program of an answer against `metadata["tests"]` of its prompt.

    Asserts (a string, as MBPP and HumanEval have them) run after the program, in its names; with
    `metadata["entry_point"]` they define `check`, which is called with that function. Pairs (a list of
    `{"input", "output"}`, as APPS and TACO have them) each run the program anew on stdin.
    """

    name = "code"
    version = 1

    def __init__(self, limits: Limits | None = None) -> None:
        """Probe the sandbox once.

        Raises:
            ConfigError: the sandbox cannot protect this machine.
        """
        self._limits = limits or Limits()
        if reason := check_sandbox():
            raise ConfigError(reason)

    def score(self, answer: str, prompt: Prompt) -> float:
        """The share of pairs whose output is right, or 1 where every assert held and 0 where not.

        Raises:
            InputError: the prompt has no tests, or tests that cannot be read.
            ConfigError: the sandbox cannot protect this machine any more.
        """
        tests = prompt.metadata.get("tests")
        if not tests:
            raise InputError(
                f"prompt {prompt.prompt_id} has no tests: fill the metadata column tests with asserts or with a list "
                "of input/output pairs"
            )
        program = find_program(answer)
        if isinstance(tests, str):
            checks = _with_entry_point(tests, prompt)
            return float(self._run(program, "", checks).checked)
        return self._share(program, _pairs(tests, prompt))

    def _share(self, program: str, pairs: list[tuple[str, str]]) -> float:
        """Share of pairs passed.

        After the first one that runs out of time the rest fail unseen: an endless loop costs one limit, not one per
        test.
        """
        passed = 0
        for stdin, expected in pairs:
            result = self._run(program, stdin, None)
            if result.outcome == "timeout":
                break
            clean = result.outcome == "finished" and result.exit_code == 0
            passed += clean and _lines(result.stdout) == _lines(expected)
        return passed / len(pairs)

    def _run(self, program: str, stdin: str, checks: str | None) -> SandboxResult:
        result = run_python(program, stdin, self._limits, checks)
        if result.outcome == "refused":
            raise ConfigError(result.stderr)
        return result


def find_program(answer: str) -> str:
    """The last fenced block marked as Python, else the last unmarked one, else the whole answer.

    Marked ones go first because a last unmarked block often shows what the program prints. A fence that is never
    closed runs to the end, as in CommonMark (https://spec.commonmark.org/0.31.2/#fenced-code-blocks).
    """
    blocks = _fenced(answer)
    for wanted in (_PYTHON, {""}):
        found = [code for language, code in blocks if language in wanted]
        if found:
            return textwrap.dedent(found[-1])
    return answer


def _fenced(text: str) -> list[tuple[str, str]]:
    """Language (lower case) and content of every fenced block."""
    blocks: list[tuple[str, list[str]]] = []
    fence = ""
    for line in text.split("\n"):
        bare = line.strip()
        if fence:
            if bare.startswith(fence) and not bare.strip(fence[0]):
                fence = ""
            else:
                blocks[-1][1].append(line)
        elif bare.startswith("```"):
            language = bare.lstrip("`")
            fence = "`" * (len(bare) - len(language))
            if "`" in language:  # inline code, not a fence
                fence = ""
                continue
            blocks.append((language.strip().lower().partition(" ")[0], []))
    return [(language, "\n".join(lines) + "\n") for language, lines in blocks]


def _with_entry_point(tests: str, prompt: Prompt) -> str:
    """HumanEval's tests define `check(candidate)` and leave the call to whoever runs them."""
    entry_point = prompt.metadata.get("entry_point")
    if entry_point is None:
        return tests
    if not isinstance(entry_point, str) or not entry_point.isidentifier():
        raise InputError(f"prompt {prompt.prompt_id} has entry_point {entry_point!r}: name one function of the program")
    return f"{tests}\ncheck({entry_point})\n" if "def check(" in tests else tests


def _pairs(tests: Any, prompt: Prompt) -> list[tuple[str, str]]:
    """Input and output of every pair."""
    try:
        pairs = [(test["input"], test["output"]) for test in tests]
    except (TypeError, KeyError, IndexError):
        pairs = []
    if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise InputError(
            f"prompt {prompt.prompt_id} has tests that cannot be read ({str(tests)[:80]!r}): give asserts as one "
            'string, or a list of {"input": text, "output": text}'
        )
    return pairs


def _lines(output: str) -> list[str]:
    """Lines without trailing white space, and no empty ones at the end."""
    return [line.rstrip() for line in output.rstrip().split("\n")]
