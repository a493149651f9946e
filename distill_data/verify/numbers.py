r"""Numbers as people and models write them: `-1,234.50`, `$3/4$`, `\frac{3}{4}`, `2 1/2`, `6.02e23`, `45\%`, `$18`.

A number is read exactly, as a fraction; one that would take more than MAX_DIGITS digits is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from distill_data.verify.units import UNITS, unit_of

MAX_DIGITS = 300
WINDOW = 80  # where the last number of a long text is looked for, in characters before its last digit

_INTEGER = r"(?:[0-9]{1,3}(?:(?:,|\{,\}|\\,|,\\!|[\u00a0\u2009\u202f])[0-9]{3})+(?![0-9])|[0-9]+)"
_UNSIGNED = rf"(?:{_INTEGER}(?:\.[0-9]+)?|\.[0-9]+)"
_CURRENCY = r"(?:\\?[$€£¥₹]\s?)"
_NUMBER = re.compile(
    rf"""(?<![\w.^])(?<![\^_]\{{)
    {_CURRENCY}?(?P<sign>(?<![\w)}}\]%])[-+])?{_CURRENCY}?
    (?:
        (?:(?P<whole>[0-9]+)(?:\s+|\s*(?=\\)))?
        (?:\\[dtc]?frac\{{(?P<top>[-+]?{_UNSIGNED})\}}\{{(?P<bottom>{_UNSIGNED})\}}
         |(?P<over>{_UNSIGNED})\s?/\s?(?P<under>{_UNSIGNED})(?!\s?/))
      |
        (?P<number>{_UNSIGNED})
        (?:[eE](?P<e>[-+]?[0-9]+)|\s?(?:\\times|\\cdot|[x*·])\s*10\s?(?:\^|\*\*)\s?\{{?(?P<power>[-+]?[0-9]+)\}}?)?
        (?:\s(?P<scale>thousand|million|billion|trillion)\b)?
    )
    (?P<percent>\s?(?:\\?%|percent\b))?""",
    re.VERBOSE,
)
_LAST_DIGIT = re.compile(r".*([0-9½⅓⅔¼¾⅕⅛])", re.DOTALL)
_SEPARATORS = re.compile(r"[^0-9.+-]")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_POWER_OF_TEN = re.compile(r"(?<=10)[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_SIGNS_AND_FRACTIONS = str.maketrans(
    {"−": "-", "–": "-", "⁄": "/", "×": "\\times "}  # noqa: RUF001 (minus, en dash, fraction slash, times)
    | dict(zip("½⅓⅔¼¾⅕⅛", (" 1/2", " 1/3", " 2/3", " 1/4", " 3/4", " 1/5", " 1/8"), strict=True))
)
_SPACED_MINUS = re.compile(r"(?:^|[=:(,{$])\s*-\s+$")
_RIGHT_OPERAND = re.compile(
    r"(?:[\w)}\]](?:\s+[-+*/÷·^]\s+|[-+*/÷·])|[0-9][,: ]|[±√]\s*|\\(?:pm|mp|sqrt\{?|cdot|times|div)\s*)$"
)
_LEFT_OPERAND = re.compile(
    r"\s*(?:\\?pi\b|[π√]|\^(?!\s*\{?\s*\\circ)|\\(?:sqrt|cdot|times|div)\b)|[xyzn](?![a-zA-Z])|\.[0-9]"
    r"|\s*[-+*/÷]\s*(?:[a-zA-Z]\b|[\\(√π])"
)


@dataclass(frozen=True)
class Quantity:
    """A number as it was written."""

    value: Fraction
    percent: bool = False
    decimal: bool = False  # with a decimal point or an exponent: it may be rounded
    unit: str = ""

    @property
    def whole(self) -> bool:
        """Neither a fraction nor a percentage."""
        return not self.percent and self.value.denominator == 1

    def readings(self, other: Quantity) -> list[Fraction]:
        """What this may mean beside `other`: where only one says percent, 45% is 45 or 0.45."""
        return [self.value, self.value / 100] if self.percent and not other.percent else [self.value]

    def same_unit(self, other: Quantity) -> bool:
        """False where both name a known unit, and not the same."""
        return self.unit == other.unit or not {self.unit, other.unit} <= UNITS


def last_number(text: str) -> Quantity | None:
    """The last number in a text, with the unit that the text ends with.

    None where there is none, or where it is a part of an expression or a range.
    """
    last = _LAST_DIGIT.match(text)
    if last is None:
        return None
    end = last.start(1)
    cut = max(0, end - WINDOW)
    text = _ascii(text[cut : end + 40])
    found = None
    for found in _NUMBER.finditer(text):  # noqa: B007 (the last one is wanted)
        pass
    if found is None or (cut and not found.start()):  # the window may have cut the number itself
        return None
    before = text[: found.start()]
    if _LEFT_OPERAND.match(text, found.end()) or _RIGHT_OPERAND.search(before):
        return None
    behind = text[found.end() :].strip(" .")
    unit = unit_of(behind) if behind else ""
    return _quantity(found, negative=bool(_SPACED_MINUS.search(before)), unit=unit or "")


def plain_number(text: str) -> Quantity | None:
    """The number that a whole text is, with a unit or words behind it or without; None where it is anything else."""
    if len(text) > 2 * WINDOW:
        return None
    text = _ascii(text).strip()
    negative = text.startswith("- ")
    found = _NUMBER.match(text, 2 if negative else 0)
    if found is None:
        return None
    unit = unit_of(text[found.end() :])
    return None if unit is None else _quantity(found, negative, unit)


def _ascii(text: str) -> str:
    """The same numbers without their rarer signs: minus, vulgar fractions, superscripts after 10."""
    if text.isascii():
        return text
    text = _POWER_OF_TEN.sub(lambda power: "^" + power.group().translate(_SUPERSCRIPTS), text)
    return text.translate(_SIGNS_AND_FRACTIONS)


def _quantity(found: re.Match[str], negative: bool = False, unit: str = "") -> Quantity | None:
    """What a match of `_NUMBER` says; None where it divides by zero or is too long."""
    if found.end() - found.start() > MAX_DIGITS:
        return None
    top, bottom = found["top"] or found["over"], found["bottom"] or found["under"]
    exponent = int(found["e"] or found["power"] or 0) + _SCALES.get(found["scale"] or "", 0)
    if abs(exponent) > MAX_DIGITS or (bottom and not _fraction(bottom)):
        return None
    value = _fraction(top) / _fraction(bottom) if top else _fraction(found["number"])
    if exponent and not top:
        value *= Fraction(10) ** exponent
    if found["whole"]:
        value += int(found["whole"])
    decimal = "." in found.group() or bool(found["e"] or found["power"])
    return Quantity(-value if negative or found["sign"] == "-" else value, bool(found["percent"]), decimal, unit)


def _fraction(digits: str) -> Fraction:
    if digits.isdecimal():
        return Fraction(int(digits))
    return Fraction(_SEPARATORS.sub("", digits))
