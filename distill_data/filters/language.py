"""Which language a text is in, by the optional package lingua-language-detector (imported only here)."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow.compute as pc

from distill_data.errors import ConfigError
from distill_data.filters.flat_text import Traces, where_said

PACKAGE = "lingua-language-detector"
_CHARACTERS = 400  # of a text that are looked at; lingua is sure after some 120
_NO_PROSE = r"(?s:```.*?(?:```|$))|\$[^$]*\$|\\[A-Za-z]+|<[^<>\n]{1,40}>"


def check_language(codes: Sequence[str]) -> None:
    """Whether languages can be told, and these among them.

    Raises:
        ConfigError: the package is not installed, or does not know a language.
    """
    try:
        import lingua  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            f"filters.language is {', '.join(codes)} and the package {PACKAGE} is not installed: run "
            f"`pip install {PACKAGE}`, or leave filters.language out"
        ) from None
    known = {language.iso_code_639_1.name.lower() for language in lingua.Language.all()}
    if unknown := sorted(set(codes) - known):
        raise ConfigError(
            f"filters.language has {unknown[0]!r}, which {PACKAGE} does not know: give some of "
            f"{', '.join(sorted(known))}"
        )


def language_confidence(traces: Traces, codes: Sequence[str]) -> np.ndarray:
    """How sure lingua is that `completion` is in one of these languages, 0 to 1; NaN where it has no words.

    Confidences over all its languages sum to 1. Formulas, code and tags are left out, and only 400 characters of what
    is left are looked at.

    Raises:
        ConfigError: the package is not installed, or does not know a language.
    """
    check_language(codes)
    prose = pc.replace_substring_regex(pc.fill_null(traces["completion"], ""), _NO_PROSE, " ")
    opening = pc.utf8_slice_codeunits(prose, 0, _CHARACTERS).to_pylist()
    every = _detector().compute_language_confidence_values_in_parallel(opening)
    sums = [_confidence(values, set(codes)) for values in every]
    return where_said(np.asarray(pc.is_valid(traces["completion"])), np.array(sums, np.float32))


def _confidence(values: Any, codes: set[str]) -> float:
    if not sum(value.value for value in values):
        return np.nan
    return sum(value.value for value in values if value.language.iso_code_639_1.name.lower() in codes)


@cache
def _detector() -> Any:
    from lingua import LanguageDetectorBuilder  # pyright: ignore[reportMissingImports]

    # on more than a sentence the smaller models are as good as the large ones, in a tenth of the memory
    return LanguageDetectorBuilder.from_all_languages().with_low_accuracy_mode().build()
