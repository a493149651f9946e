"""Personal data in a text: addresses and numbers that reach or name a person."""

# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distill_data.filters.flat_text import Traces, where_said

# Whatever a finder below can find has what stands here in it (RE2).
_MAY_BE_EMAIL = r"@[A-Za-z0-9-]+\.[A-Za-z]"
_MAY_BE_PHONE = r"[0-9]{3}\)?[-. ][0-9]{3}[-. ][0-9]{4}|\+[1-9][0-9]{0,2}[ .(-]?[(0-9]"
_MAY_BE_IBAN = r"[A-Z]{2}[0-9]{2} ?[A-Z0-9]{4}"
_MAY_BE_CARD = r"[0-9]{13}|[0-9]{4}[ -][0-9]{4,6}[ -][0-9]{4,5}"
_MAY_BE_IPV4 = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]"
_EMAIL = re.compile(r"[\w+-]@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b")
_EXAMPLE_DOMAIN = re.compile(r"@(?:[\w-]+\.)*(?:example\.(?:com|org|net|edu)|example|test|invalid|localhost)$")
_PHONE = re.compile(
    r"(?<![\w.)+-])(?:\+[1-9]\d{0,2}[ .-]?(?:\(\d{1,5}\)[ .-]?)?\d{1,5}(?:[ .-]\d{2,5}){2,4}|\+[1-9]\d{9,13}"
    r"|(?:\(\d{3}\) |\d{3}[-.])\d{3}[-.]\d{4})(?![\w-]|\.\d)"
)
# a digit first: then Python skips to digits, which takes a tenth of the time
_IPV4 = re.compile(r"\d(?<![\w.-]\d)\d{0,2}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
# Visa, Mastercard, American Express, Discover; in groups as printed on the card, or without
_CARD = re.compile(
    r"(?<![\w.,-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)([ -]?)\d{4}\1\d{4}\1\d{4}"
    r"|3[47]\d\d([ -]?)\d{6}\2\d{5})(?![\w-]|[.,]\d)"
)


def personal_data(traces: Traces) -> np.ndarray:
    """1 where `completion` has an e-mail address, telephone number, IBAN, card number or public IP address, else 0.

    One expression over the whole column finds candidates, others of which kind they are; with that kind's exact one
    they are looked at. Addresses kept for examples (RFC 2606) and private networks do not count.
    """
    texts = pc.fill_null(traces["completion"], "")
    found = np.zeros(len(texts), bool)
    maybe = np.flatnonzero(np.asarray(pc.match_substring_regex(texts, _CANDIDATE)))
    candidates = texts.take(pa.array(maybe))
    for may_be, finder, is_one in _FINDERS:
        rows = np.flatnonzero(np.asarray(pc.match_substring_regex(candidates, may_be)))
        for row, text in zip(maybe[rows], candidates.take(pa.array(rows)).to_pylist(), strict=True):
            found[row] |= any(is_one(match.group()) for match in finder.finditer(text))
    return where_said(np.asarray(pc.is_valid(traces["completion"])), found)


def passes_luhn(number: str) -> bool:
    """Whether digits pass the check of card numbers (ISO/IEC 7812-1); a random number does so one time in ten."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether a text passes the check of bank account numbers (ISO 13616, modulo 97)."""
    account = text.replace(" ", "")
    if not 15 <= len(account) <= 34:
        return False
    return int("".join(str(int(character, 36)) for character in account[4:] + account[:4])) % 97 == 1


def is_public_ip(text: str) -> bool:
    """Whether a text is an IPv4 address that can be reached from anywhere."""
    try:
        return IPv4Address(text).is_global
    except AddressValueError:
        return False


def _is_email(text: str) -> bool:
    return not _EXAMPLE_DOMAIN.search(text)


def _is_phone(text: str) -> bool:
    return 9 <= sum(character.isdigit() for character in text) <= 15  # E.164 allows 15


_FINDERS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    (_MAY_BE_EMAIL, _EMAIL, _is_email),
    (_MAY_BE_PHONE, _PHONE, _is_phone),
    (_MAY_BE_IBAN, _IBAN, is_iban),
    (_MAY_BE_CARD, _CARD, passes_luhn),
    (_MAY_BE_IPV4, _IPV4, is_public_ip),
)
_CANDIDATE = "|".join(may_be for may_be, _, _ in _FINDERS)
