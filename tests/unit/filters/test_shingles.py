"""Hashes that a compiled loop makes of texts, against those of the tokens that Arrow and RE2 find."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from xxhash import xxh3_64_intdigest

from distill_data.filters.alike_samples import alike_samples
from distill_data.filters.normalise import token_hashes, tokens
from distill_data.filters.shingles import HashedTexts, n_grams

FACTOR = 0x9E3779B97F4A7C15
PIECES = [*"-*3x([{  $`!\n/%~\t", "ab", "12", "word", "internationalisation", "supercalifragilistic" * 9,
          "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}", "½", "²", "Ω", "é", "e\u0301", "A\u030a", "İ", "ﬁ", "\u2028",
          "страница", "用", "\u1100", "\u1161", "한", "ﾊﾞ", "\u0e33", "😀", "\U0001d499"]  # fmt: skip


def slow(texts: Sequence[str | None]) -> list[list[int]]:
    found = tokens(pa.array(texts, pa.string())).to_pylist()
    return [[xxh3_64_intdigest(token.encode()) for token in said or []] for said in found]


def fast(texts: pa.Array) -> list[list[int]]:
    starts, hashes = token_hashes(texts)
    return [hashes[start:stop].tolist() for start, stop in pairwise(starts.tolist())]


def mixtures(count: int, seed: int) -> list[str | None]:
    source = random.Random(seed)
    texts = ["".join(source.choices(PIECES, k=source.randint(0, 30))) for _ in range(count)]
    return [None if source.random() < 0.02 else text for text in texts]


def test_every_code_point_alone_and_in_a_word() -> None:
    codes = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 1 << 16):
        some = codes[start : start + (1 << 16)]
        texts = ["".join(some), " 3 ".join(some), "a".join(some)]
        assert fast(pa.array(texts)) == slow(texts)
    plane = codes[:0x3100]
    assert fast(pa.array(plane)) == slow(plane)


def test_mixtures_nulls_and_slices() -> None:
    texts = mixtures(4000, seed=1)
    whole = pa.array(texts)
    expected = slow(texts)
    assert fast(whole) == expected
    assert fast(whole.slice(100, 700)) == expected[100:800]
    assert fast(pa.array([None, "", "!"], pa.string())) == [[], [], []]
    assert fast(pa.array([], pa.string())) == []


def test_tokens_of_every_length() -> None:
    texts = ["".join(random.Random(length).choices("abcdefgh", k=length)) for length in range(1, 300)]
    assert fast(pa.array(texts)) == [[xxh3_64_intdigest(text.encode())] for text in texts]


@pytest.mark.parametrize("size", [1, 5, 13])
def test_n_grams_are_polynomials_of_their_tokens(size: int) -> None:
    texts = mixtures(500, seed=2)
    found = n_grams(pa.array(texts), size)
    for row, said in enumerate(slow(texts)):
        last = max(len(said) - size, 0) if said else -1
        runs = [said[start : start + size] for start in range(last + 1)]
        sums = [sum(token * FACTOR**place for place, token in enumerate(run)) % 2**64 for run in [*runs, said]]
        assert found.hashes[found.offsets[row] : found.offsets[row + 1]].tolist() == sums[:-1]
        assert int(found.whole[row]) == sums[-1]


@pytest.mark.parametrize("similarity", [0.4, 0.8, 1.0])
def test_alike_samples_as_sets_say_it(similarity: float) -> None:
    source = random.Random(3)
    rows: list[tuple[int, str | None]] = []
    for group in range(60):
        words = [f"word{source.randrange(500)}" for _ in range(40)]
        for _ in range(source.choice([1, 2, 4, 9])):
            said = [f"other{source.randrange(9)}" if source.random() < 0.02 else word for word in words]
            rows.append((group, source.choice([" ".join(said)] * 9 + ["", None, "one"])))
    source.shuffle(rows)
    sets = [{tuple(said[start : start + 5]) for start in range(max(len(said) - 4, 1))} if said else set()
            for said in (slow([text])[0] for _, text in rows)]  # fmt: skip
    expected = list(range(len(rows)))
    for row, (group, _) in enumerate(rows):
        for other in range(row):
            both, either = len(sets[row] & sets[other]), len(sets[row] | sets[other])
            if rows[other][0] == group and expected[other] == other and either and both / either >= similarity:
                expected[row] = other
                break
    texts = pa.array([text for _, text in rows])
    found = alike_samples(HashedTexts.of(texts), np.array([group for group, _ in rows]), similarity)
    assert found.tolist() == expected and (similarity == 1.0 or len({*expected}) < len(rows))
