"""Units behind a number, so that 5 cm is not taken for 5 m; amounts are not converted."""

from __future__ import annotations

import re

_SPELLINGS = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram",
    "lb": "pound lbs",
    "oz": "ounce",
    "ml": "milliliter millilitre",
    "l": "liter litre",
    "ms": "millisecond",
    "s": "sec second",
    "min": "minute",
    "h": "hr hour",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr",
    "degree": "deg ° ^circ",
    "cent": "",
    "dollar": "usd",
    "euro": "eur €",
    "gbp": "£",
    "n": "newton",
    "j": "joule",
    "w": "watt",
    "v": "volt",
    "a": "ampere amp",
    "hz": "hertz",
    "mph": "mi/h",
    "km/h": "kmph kph",
    "m/s": "mps",
}
_BY_SPELLING = {name: unit for unit, names in _SPELLINGS.items() for name in [unit, *names.split()]}
_POWERS = {"": "", "2": "^2", "3": "^3"}
UNITS = frozenset(unit + power for unit in _SPELLINGS for power in _POWERS.values())

_WRAPPING = re.compile(r"\\(?:text|mathrm|mbox|rm|textrm)(?![a-zA-Z])|\\[ ,;:!]|[{}$*_`~]|\\[()\]]")
_ENDING = re.compile(r"\s*(?:\^\s*([23])|([²³]))$")
_LEADING = re.compile(r"(?:(square|sq)|(cubic|cu))\.?\s+")
_WORDS = re.compile(r"(?:[a-z]{3,}|of)(?: (?:[a-z/-]{2,}|a))*")
_NO_UNIT = re.compile(
    r"(?:thousand|million|billion|trillion|hundred|dozen|squared|cubed|factorial|over|times|plus|minus|more|less|and)\b"
)


def unit_of(text: str) -> str | None:
    """The unit that a text behind a number names, its spelling unified; other words as they are; "" for nothing.

    None where the text is neither, as the `x` of `5x` or the `+ 1` of `5 + 1`.
    """
    text = " ".join(_WRAPPING.sub(" ", text.replace("\\circ", "circ")).lower().split()).rstrip(" .")
    if not text:
        return ""
    if text in ("^ circ", "^circ"):
        return "degree"
    name, power = _without_power(text)
    name = _BY_SPELLING.get(name) or _BY_SPELLING.get(name.removesuffix("s"), name)
    if name + power in UNITS:
        return name + power
    return text if _WORDS.fullmatch(text) and not _NO_UNIT.match(text) and "circ" not in text else None


def _without_power(text: str) -> tuple[str, str]:
    """`cm²` and `square cm` as `cm` and `^2`."""
    if ending := _ENDING.search(text):
        return text[: ending.start()], "^" + (ending[1] or ("2" if ending[2] == "²" else "3"))
    if leading := _LEADING.match(text):
        return text[leading.end() :], "^2" if leading[1] else "^3"
    return text, ""
