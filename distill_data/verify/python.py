"""A function of the user's own scores the answer."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from distill_data.errors import ConfigError
from distill_data.file_hash import file_sha256
from distill_data.records import Prompt


class PythonVerifier:
    """Calls `function(answer, prompt)`, named as `package.module:function` and imported when it is first needed.

    It runs with this process' rights. Its result is a number from 0 to 1, or True or False.
    """

    name = "python"
    version = 1

    def __init__(self, function: str) -> None:
        self._name = function
        self._function: Callable[[str, Prompt], Any] | None = None

    @property
    def source_sha256(self) -> str | None:
        """Hash of the file that the function is in, None where it is in no file: a changed function judges anew.

        Raises:
            ConfigError: its module cannot be found.
        """
        module_name = self._name.partition(":")[0]
        try:
            spec = find_spec(module_name)
        except Exception as error:
            raise _cannot_import(self._name, module_name, error) from error
        if spec is None:
            raise _cannot_import(self._name, module_name, ModuleNotFoundError(f"no module named {module_name!r}"))
        return file_sha256(Path(spec.origin)) if spec.has_location and spec.origin else None

    def score(self, answer: str, prompt: Prompt) -> float:
        """What the function says of the answer.

        Raises:
            ConfigError: the function cannot be imported, or its result is no number from 0 to 1.
            Exception: whatever the function raised.
        """
        result = (self._function or self.import_function())(answer, prompt)
        if not isinstance(result, Real | np.bool_) or not 0.0 <= float(result) <= 1.0:  # NaN is not between them
            raise ConfigError(
                f"{self._name} gave {str(result)[:80]!r} ({type(result).__name__}): "
                "let it return a number from 0 to 1, or True or False"
            )
        return float(result)

    def import_function(self) -> Callable[[str, Prompt], Any]:
        """The function itself.

        Raises:
            ConfigError: its module cannot be imported, or has no such function.
        """
        module_name, _, name = self._name.partition(":")
        try:
            module = import_module(module_name)
        except Exception as error:
            raise _cannot_import(self._name, module_name, error) from error
        function = getattr(module, name, None)
        if not callable(function):
            raise ConfigError(f"judge.function {self._name!r}: {module_name} has no function {name!r}: name one")
        self._function = function
        return function


def _cannot_import(name: str, module_name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"judge.function {name!r}: importing {module_name} failed ({type(error).__name__}: {error}): "
        "install its package, or put its folder on PYTHONPATH"
    )
