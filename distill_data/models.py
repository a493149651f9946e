"""Where a model reference points: hub id, local folder, GGUF file, or GGUF file in a Python package."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from distill_data.errors import ModelError
from distill_data.file_hash import cache_folder, file_sha256
from distill_data.gguf import PACKAGE_PREFIX, converted_folder, packaged_file
from distill_data.identity import digest

__all__ = [
    "ModelSource", "cache_folder", "file_sha256", "load_tokenizer", "local_model_folder",
    "model_fingerprint", "resolve_model", "tokenizer_fingerprint",
]  # fmt: skip

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
# The files that loaders read. Others, our own training.json among them, say nothing about the model.
MODEL_FILES = (
    "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
    "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "*.model", "*.tiktoken",
    "vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "chat_template.json", "additional_chat_templates/*", "*.py",
)  # fmt: skip
# What is downloaded holds all of MODEL_FILES; *.py only comes with trust_remote_code.
HUB_FILES = ["*.safetensors", "*.json", "*.model", "*.tiktoken", "*.txt", "*.jinja", "additional_chat_templates/*"]


@dataclass(frozen=True)
class ModelSource:
    """A resolved model reference.

    `path` is the folder or the `.gguf` file, and None for a hub id; `revision` is for hub ids only.
    """

    reference: str
    kind: Literal["hub", "folder", "gguf"]
    path: Path | None
    revision: str | None


def resolve_model(reference: str, revision: str | None = None) -> ModelSource:
    """What a reference names. Local paths come before hub ids; no network and no model is touched.

    Raises:
        ModelError: the package, file or folder is not there, or a folder does not hold a safetensors model,
            or `revision` is given for a local model.
    """
    source = _resolve(reference, revision)
    if revision and source.kind != "hub":
        raise ModelError(f"model {reference!r} is local, and revision {revision!r} is for hub ids: remove it")
    return source


def model_fingerprint(source: ModelSource) -> dict[str, str]:
    """What a model adds to its teacher's id: the content of local files, or the commit of a hub id.

    Raises:
        ModelError: the hub does not have the model, or cannot be reached while no snapshot is cached.
    """
    if source.kind == "hub":
        return {"hub": source.reference, "commit": _hub_commit(source)}
    path = _local_path(source)
    if source.kind == "gguf":
        return {"gguf_sha256": file_sha256(path)}
    files = sorted({file for pattern in MODEL_FILES for file in path.glob(pattern) if file.is_file()})
    return {"folder_sha256": digest([[file.relative_to(path).as_posix(), file_sha256(file)] for file in files])}


def local_model_folder(source: ModelSource, *, trust_remote_code: bool = False) -> Path:
    """A folder that transformers and vLLM load: the folder itself, a hub snapshot, or a converted GGUF file.

    A GGUF file is converted once (bfloat16, dequantized) into the cache folder; a killed conversion leaves
    no half model behind.

    Raises:
        ModelError: the snapshot cannot be had or holds no safetensors model, or the file cannot be converted.
    """
    if source.kind == "folder":
        return _local_path(source)
    if source.kind == "gguf":
        return converted_folder(_local_path(source), trust_remote_code=trust_remote_code)
    from huggingface_hub import snapshot_download

    patterns = [*HUB_FILES, "*.py"] if trust_remote_code else HUB_FILES
    commit = _hub_commit(source)
    try:
        folder = Path(snapshot_download(source.reference, revision=commit, allow_patterns=patterns))
    except Exception as error:
        raise ModelError(
            f"model {source.reference!r} at {commit[:12]} cannot be downloaded ({_one_line(error)}): "
            "check the network and your access, or give a local folder"
        ) from error
    _check_model_folder(folder, source.reference)
    return folder


def load_tokenizer(source: ModelSource, *, trust_remote_code: bool = False) -> Any:
    """The model's transformers tokenizer, the fast one where there is one.

    Raises:
        ModelError: the model has no tokenizer that loads.
    """
    folder = local_model_folder(source, trust_remote_code=trust_remote_code)
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise ModelError(
            f"model {source.reference!r} has no tokenizer that loads ({_one_line(error)}): "
            "save its tokenizer beside it with save_pretrained"
        ) from error


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """SHA-256 of what a tokenizer does to text: vocabulary, merges and rules, special token ids.

    Padding and truncation settings are left out: they change batches, not tokens.
    """
    rules: dict[str, Any] = {}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        rules["padding"] = rules["truncation"] = None
    special = [tokenizer.bos_token_id, tokenizer.eos_token_id, sorted(set(tokenizer.all_special_ids))]
    return digest({"vocabulary": tokenizer.get_vocab(), "rules": rules, "special": special})


def _resolve(reference: str, revision: str | None) -> ModelSource:
    if reference.startswith(PACKAGE_PREFIX):
        return ModelSource(reference, "gguf", packaged_file(reference), None)
    path = Path(reference).expanduser()
    if path.is_dir():
        _check_model_folder(path, reference)
        return ModelSource(reference, "folder", path.absolute(), None)
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource(reference, "gguf", path.absolute(), None)
    if path.exists():
        raise ModelError(f"model {reference!r} is no .gguf file: give that, or the folder that holds the model")
    if reference.startswith((".", "/", "~")) or reference.endswith(".gguf") or reference.count("/") > 1:
        raise ModelError(f"model {reference!r} does not exist: give the path of a folder or a .gguf file")
    if not HUB_ID.fullmatch(reference):
        raise ModelError(f"model {reference!r} is no folder, .gguf file or hub id: write a hub id as org/name")
    return ModelSource(reference, "hub", None, revision)


def _check_model_folder(folder: Path, reference: str) -> None:
    """Refuse a folder that transformers and vLLM could not load as a safetensors model."""
    if not (folder / "config.json").is_file():
        raise ModelError(f"model {reference!r} has no config.json: give the folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        found = "only .bin weights" if any(folder.glob("*.bin")) else "no *.safetensors weights"
        raise ModelError(
            f"model {reference!r} has {found}: only safetensors is read, "
            "convert it by loading it with transformers and calling save_pretrained"
        )
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        needed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if missing := sorted(name for name in needed if not (folder / name).is_file()):
            raise ModelError(f"model {reference!r} lacks {missing[0]} of its {len(needed)} weight files: copy it")


def _hub_commit(source: ModelSource) -> str:
    """The commit that a hub id and revision name now; offline, the commit of the cached snapshot."""
    if source.revision and COMMIT.fullmatch(source.revision):
        return source.revision
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    name = repr(source.reference) + (f" at revision {source.revision!r}" if source.revision else "")
    try:
        commit = HfApi().model_info(source.reference, revision=source.revision).sha
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(f"the hub has no model {name}, or you may not read it: check the id, or log in") from error
    except Exception as unreachable:
        try:
            return Path(snapshot_download(source.reference, revision=source.revision, local_files_only=True)).name
        except LocalEntryNotFoundError:
            raise ModelError(
                f"the hub cannot be reached for model {name} ({_one_line(unreachable)}) and no snapshot "
                "of it is cached: go online, or give a local folder"
            ) from unreachable
    if commit is None:
        raise ModelError(f"the hub names no commit for model {name}: give revision: a commit")
    return commit


def _local_path(source: ModelSource) -> Path:
    if source.path is None:
        raise ModelError(f"model {source.reference!r} has no local path: resolve it with resolve_model")
    return source.path


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
