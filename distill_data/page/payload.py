"""The viewer's rows as one JSON text that fits into the page and can stand inside a <script> element."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill_data.page.examples import CUTS, Cuts, Decode, Row, shown_row

MOST_BYTES = 4_000_000


@dataclass(frozen=True)
class Payload:
    """JSON for the viewer, and what was cut to make it fit."""

    json: str
    cuts: Cuts
    kept: int
    rejected: int


def payload(kept: list[Row], rejected: list[Row], decode: Decode | None) -> Payload:
    """Rows as JSON of at most MOST_BYTES, cut as little as CUTS allows; rows stay in their order, kept ones first."""
    text, cuts = "", CUTS[0]
    for cuts in CUTS:
        rows = [shown_row(row, cuts, decode is not None) for row in [*kept, *rejected]]
        text = script_json({"rows": rows, "texts": _texts(rows, decode), "cut_tokens": cuts.tokens})
        if len(text.encode()) <= MOST_BYTES:
            break
    return Payload(text, cuts, len(kept), len(rejected))


def script_json(value: Any) -> str:
    """JSON that no HTML parser takes for markup: `<`, `>` and `&` are escaped, so no `</script>` or `<!--` is in it.

    OWASP's Cross Site Scripting Prevention cheat sheet, "Safe JSON in HTML"; U+2028 and U+2029 end lines in old
    JavaScript. Half a surrogate pair, which no UTF-8 file can hold, becomes a question mark.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode()


def _texts(rows: list[Row], decode: Decode | None) -> dict[int, str]:
    """Text of every token id that is shown, once."""
    if decode is None:
        return {}
    shown = [row["tokens"] for row in rows if row["tokens"]]
    ids = {number for tokens in shown for number in tokens["ids"]}
    ids |= {number for tokens in shown for pairs in tokens["alternatives"] for number in pairs[::2]}
    ordered = np.array(sorted(ids), np.int32)
    return dict(zip(ordered.tolist(), decode(ordered), strict=True))
