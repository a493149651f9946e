"""A model from the files that save_pretrained wrote: safetensors only, all of its weights, float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from distill_data.errors import ModelError
from distill_data.student.forward import quiet_transformers


def load_weights(
    architecture: Any,
    folder: Path,
    *,
    trust_remote_code: bool,
    may_lack: Callable[[PreTrainedModel, str], bool] = lambda model, name: False,
    **options: Any,
) -> PreTrainedModel:
    """Load with one of transformers' auto classes; `options` are fields of the model's config.

    `may_lack` says of a weight that is not in the files whether it may be made anew.

    Raises:
        ModelError: the folder does not hold a whole model of this kind.
    """
    try:
        with quiet_transformers():
            loaded: Any = architecture.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise ModelError(
            f"student {folder} cannot be loaded with {architecture.__name__} ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}): give a folder that save_pretrained wrote with safetensors "
            "weights, of an architecture that transformers has such a model for"
        ) from error
    model, loading = loaded
    missing = map(str, [*loading["missing_keys"], *loading["mismatched_keys"]])
    if lost := sorted(name for name in missing if not may_lack(model, name)):
        raise ModelError(
            f"student {folder} lacks {len(lost)} weights ({lost[0]} …): save it again with save_pretrained"
        )
    return model
