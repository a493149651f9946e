"""GGUF models: found inside Python packages, and converted once into folders that vLLM loads."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from distill_data.errors import ModelError
from distill_data.file_hash import cache_folder, file_sha256
from distill_data.package_file import package_file

PACKAGE_PREFIX = "gguf+package://"


def packaged_file(reference: str) -> Path:
    """The file of `gguf+package://PACKAGE/FILE`, found without importing the package.

    Raises:
        ModelError: the package is not installed, or holds no such file.
    """
    try:
        return package_file(reference, PACKAGE_PREFIX)
    except LookupError as error:
        raise ModelError(f"model {reference!r}: {error}") from None


def converted_folder(file: Path, *, trust_remote_code: bool = False) -> Path:
    """The folder that holds a GGUF file's model in safetensors (bfloat16), converted on first use.

    The folder is named by the file's hash and appears whole or not at all, whoever is killed meanwhile.

    Raises:
        ModelError: the file cannot be read as GGUF, or the cache folder cannot be written.
    """
    folder = cache_folder() / "models" / file_sha256(file)
    if folder.is_dir():
        return folder
    from filelock import FileLock
    from safetensors import SafetensorError

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                _convert_beside(folder, file, trust_remote_code)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{folder.parent} cannot be written ({' '.join(str(error).split())}): "
            "free some space, or set DISTILL_DATA_CACHE to another folder"
        ) from error
    return folder


def _convert_beside(folder: Path, file: Path, trust_remote_code: bool) -> None:
    """Convert into a temporary folder beside `folder`, then rename; the caller holds the lock."""
    fresh = folder.with_suffix(".tmp")
    shutil.rmtree(fresh, ignore_errors=True)  # left by a kill
    fresh.mkdir()
    try:
        _convert_gguf(file, fresh, trust_remote_code)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _convert_gguf(file: Path, folder: Path, trust_remote_code: bool) -> None:
    """Write a GGUF file's model and tokenizer in bfloat16 with transformers' own reader."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    arguments = {"gguf_file": file.name, "trust_remote_code": trust_remote_code}
    with _quiet_progress():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),
                **arguments,
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **arguments)
        except Exception as error:
            raise ModelError(
                f"{file} cannot be read as GGUF ({' '.join(str(error).split())[:300]}): "
                "download it again, or give the model as a safetensors folder"
            ) from error
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _quiet_progress() -> Iterator[None]:
    """No progress bars from transformers and the libraries under it; errors still raise."""
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), reader.__dict__.get("tqdm")
    logging.disable_progress_bar()
    if bar is not None:  # the one bar that transformers' own switch does not reach
        reader.__dict__["tqdm"] = partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            reader.__dict__["tqdm"] = bar
        if shown:
            logging.enable_progress_bar()
