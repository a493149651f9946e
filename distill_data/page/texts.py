"""What the tokens of a page say: the teacher's tokenizer, where it can be had."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill_data.corpus.read import Corpus
from distill_data.corpus.tokenizer import version_tokenizer
from distill_data.errors import DistillDataError
from distill_data.page.examples import Decode


def token_texts(tokenizer: Any) -> Decode:
    """Texts of token ids under a tokenizer, each token by itself; a part of a character is a replacement character."""

    def decode(ids: np.ndarray) -> list[str]:
        return tokenizer.batch_decode(ids[:, None], skip_special_tokens=False)

    return decode


def teacher_decoder(corpus: Corpus) -> Decode | str:
    """The decoder of the tokenizer that a version was made with, or why there is none."""
    try:
        tokenizer = version_tokenizer(corpus, download=True)
    except DistillDataError as error:
        return str(error)
    return token_texts(tokenizer)
