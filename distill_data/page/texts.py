"""What the tokens of a page say: the teacher's tokenizer, where it can be had."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_data.corpus.read import Corpus
from distill_data.errors import DistillDataError, ModelError
from distill_data.models import load_tokenizer, resolve_model, tokenizer_fingerprint
from distill_data.page.examples import Decode


def token_texts(tokenizer: Any) -> Decode:
    """Texts of token ids under a tokenizer, each token by itself; a part of a character is a replacement character."""

    def decode(ids: np.ndarray) -> list[str]:
        return tokenizer.batch_decode(ids[:, None], skip_special_tokens=False)

    return decode


def teacher_decoder(corpus: Corpus) -> Decode | str:
    """The decoder of the tokenizer that a version was made with, or why there is none."""
    teacher = corpus.manifest.config["teacher"]
    try:
        source = resolve_model(teacher["model"], teacher.get("revision"))
        tokenizer = load_tokenizer(source, trust_remote_code=bool(teacher.get("trust_remote_code")))
        if tokenizer_fingerprint(tokenizer) != corpus.manifest.tokenizer["sha256"]:
            raise ModelError(f"the tokenizer of {teacher['model']} is not the one that the version was made with")
    except DistillDataError as error:
        return str(error)
    return token_texts(tokenizer)
