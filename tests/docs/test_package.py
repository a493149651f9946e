from __future__ import annotations

import pkgutil
import re
import subprocess
import sys

import pytest

import distill_data
from tests.docs.conftest import PROJECT

LIGHT = """
import sys, distill_data
print([name for name in ("numpy", "pyarrow", "pydantic", "torch", "prefect", "transformers") if name in sys.modules])
"""


def test_importing_the_package_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_come_from_their_modules() -> None:
    from distill_data.config_file import load_config
    from distill_data.corpus.read import open_corpus

    assert distill_data.load_config is load_config
    assert distill_data.open_corpus is open_corpus
    assert issubclass(distill_data.ConfigError, distill_data.DistillDataError)
    for name in distill_data.__all__:
        assert getattr(distill_data, name).__name__ == name
        assert name in dir(distill_data)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_corpse'"):
        _ = distill_data.open_corpse  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_project() -> None:
    text = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{distill_data.__version__}"' in text
    assert f"## [{distill_data.__version__}]" in (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_docstring_lists_every_module() -> None:
    listed = re.findall(r"^(\w+) {2,}\S", distill_data.__doc__ or "", re.MULTILINE)
    there = [module.name for module in pkgutil.iter_modules(distill_data.__path__)]
    assert sorted(listed) == sorted(there)


def test_the_license_is_whole() -> None:
    text = (PROJECT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert "Copyright 2026 The distill-data authors" in text
