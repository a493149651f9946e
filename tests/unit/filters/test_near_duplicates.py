# ruff: noqa: RUF001
from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from distill_data.filters.alike_samples import alike_samples
from distill_data.filters.minhash import band_shape, found_share
from distill_data.filters.near_duplicates import alike_groups, first_alike
from distill_data.filters.normalise import tokens
from distill_data.filters.rare_shingles import RareShingles, prefix_length
from distill_data.filters.shingles import HashedTexts

SIMILARITIES = [0.5, 0.8, 0.95]
TEMPLATE = (
    "A baker in {} sells {} loaves of bread on Monday and {} on Tuesday. Each loaf costs {} coins, and flour for one "
    "loaf costs {}. How many coins does the baker keep after paying for all the flour that was used on both days?"
)


def shingles(texts: list[str], size: int = 5) -> list[set[tuple[str, ...]]]:
    made = [words or [] for words in tokens(pa.array(texts, pa.string())).to_pylist()]
    return [{tuple(t[at : at + size]) for at in range(max(len(t) - size + 1, 1))} if t else set() for t in made]


def similar(one: set[tuple[str, ...]], other: set[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def slow_first(texts: list[str], similarity: float, seen: list[str] | None = None) -> list[int]:
    """Every text against every kept one."""
    words = [made or [] for made in tokens(pa.array([*(seen or []), *texts])).to_pylist()]
    known = shingles(seen or [])
    sets, first, kept = shingles(texts), list[int](), list[int]()
    for row, own in enumerate(sets):
        order = sorted(range(len(known)), key=lambda at: (words[at] != words[len(known) + row], at))
        in_seen = (-1 - at for at in order if similar(own, known[at]) >= similarity)
        before = (other for other in kept if similar(own, sets[other]) >= similarity)
        first.append(next(in_seen, next(before, row)))
        kept += [row] if first[-1] == row else []
    return first


def slow_groups(texts: list[str], similarity: float) -> list[int]:
    """All pairs, joined until nothing changes."""
    sets, group = shingles(texts), list(range(len(texts)))
    for row, own in enumerate(sets):
        for other in range(row):
            if group[row] != group[other] and similar(own, sets[other]) >= similarity:
                low, high = sorted((group[row], group[other]))
                group = [low if number == high else number for number in group]
    return group


def random_texts(count: int, seed: int = 0) -> list[str]:
    """New texts and texts with up to three words of an earlier one changed."""
    draw, texts = random.Random(seed), list[str]()
    while len(texts) < count:
        words = [f"w{draw.randrange(200)}" for _ in range(draw.randrange(1, 60))]
        if texts and draw.random() < 0.6:
            words = draw.choice(texts).split()
            for _ in range(draw.randrange(4)):
                words[draw.randrange(len(words))] = f"w{draw.randrange(200)}"
        texts.append(" ".join(words))
    return texts


def templated(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [
        TEMPLATE.format(draw.choice(["Rome", "Oslo"]), *(draw.randrange(2, 6) for _ in range(4))) for _ in range(count)
    ]


TEXTS = {"random": random_texts(700), "templated": templated(300)}


@pytest.mark.parametrize("full", [1, 3, 32])
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("kind", TEXTS)
def test_as_if_all_pairs_were_compared(
    kind: str, similarity: float, full: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill_data.filters.near_duplicates._FULL", full)
    texts = TEXTS[kind]
    expected = slow_first(texts, similarity)
    assert 0 < sum(first != row for row, first in enumerate(expected)) < len(texts)
    assert first_alike(pa.array(texts), similarity).tolist() == expected
    assert alike_groups(pa.array(texts[:300]), similarity).tolist() == slow_groups(texts[:300], similarity)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_texts_of_other_corpora_came_earlier(similarity: float) -> None:
    seen, texts = TEXTS["random"][::2], TEXTS["random"][1::2]
    found = first_alike(pa.array(texts), similarity, seen=pa.array(seen))
    assert found.tolist() == slow_first(texts, similarity, seen)
    assert found.min() < 0 <= found.max()


def test_later_texts_change_nothing_for_earlier_ones() -> None:
    texts = TEXTS["random"]
    whole = first_alike(pa.array(texts), 0.8)
    for count in (0, 1, 100, 501):
        assert first_alike(pa.array(texts[:count], pa.string()), 0.8).tolist() == whole[:count].tolist()
    later = texts[400:]
    random.Random(1).shuffle(later)
    assert first_alike(pa.array(texts[:400] + later), 0.8)[:400].tolist() == whole[:400].tolist()


def test_chunks_change_nothing() -> None:
    texts = [*TEXTS["random"], *random_texts(5000, 2)]
    whole = first_alike(pa.array(texts), 0.8)
    pieces = [texts[:3], [], texts[3:4500], texts[4500:]]
    chunks = pa.chunked_array([pa.array(piece, pa.string()) for piece in pieces])
    assert first_alike(chunks, 0.8).tolist() == whole.tolist()
    assert alike_groups(chunks, 0.8).tolist() == alike_groups(pa.array(texts), 0.8).tolist()


def test_no_text_is_dropped_for_a_dropped_one() -> None:
    words = [f"w{number}" for number in range(40)]
    chain = [" ".join(words[start : start + 30]) for start in (0, 2, 4, 6)]  # 24 of 28 n-grams with the next one
    assert first_alike(pa.array(chain), 0.85).tolist() == [0, 0, 2, 2]
    assert alike_groups(pa.array(chain), 0.85).tolist() == [0, 0, 0, 0]


def test_a_group_is_found_through_dropped_texts_of_two_kept_ones() -> None:
    words = [f"w{number}" for number in range(60)]
    one, between, also, two = (" ".join(words[start : start + 30]) for start in (0, 2, 4, 6))
    assert first_alike(pa.array([one, two, between, also]), 0.85).tolist() == [0, 1, 0, 1]
    assert alike_groups(pa.array([one, two, between, also]), 0.85).tolist() == [0, 0, 0, 0]


def test_case_and_punctuation_do_not_make_a_text_new_and_numbers_do() -> None:
    texts = ["What is 3 + 4?", "what is 3+4", "What is 3 - 4?", "What is 3 + 5?", "WHAT IS: 3 + 4!"]
    assert first_alike(pa.array(texts), 0.8).tolist() == [0, 0, 2, 3, 0]
    assert first_alike(pa.array(texts), 1.0).tolist() == [0, 0, 2, 3, 0]


def test_texts_without_tokens_are_alike_to_none() -> None:
    texts = pa.array(["", "?", None, "", "yes", "Yes."])
    assert first_alike(texts, 0.8).tolist() == [0, 1, 2, 3, 4, 4]
    assert alike_groups(texts, 0.8).tolist() == [0, 1, 2, 3, 4, 4]
    assert alike_samples(HashedTexts.of(texts), np.zeros(6, int), 0.8).tolist() == [0, 1, 2, 3, 4, 4]


def test_chinese_is_compared_by_characters() -> None:
    text = "小明有三个苹果，他给了小红一个苹果，然后又买了五个苹果，请问他现在一共有几个苹果？"
    texts = [
        text,
        text.replace("？", "。"),
        text.replace("小红", "小华"),
        "请写一首关于春天的诗，不少于一百个字，谢谢你。",
    ]
    assert first_alike(pa.array(texts), 0.7).tolist() == [0, 0, 0, 3]
    assert first_alike(pa.array(texts), 0.99).tolist() == [0, 0, 2, 3]


@pytest.mark.parametrize("similarity", [0.1, 0.3, 0.8])
def test_samples_are_compared_within_their_prompt(similarity: float) -> None:
    texts = TEXTS["random"]
    groups = np.random.default_rng(0).integers(0, 60, len(texts))
    expected = np.arange(len(texts))
    for group in range(60):
        rows = np.flatnonzero(groups == group)
        expected[rows] = rows[slow_first([texts[row] for row in rows], similarity)]
    assert (expected != np.arange(len(texts))).any()
    assert alike_samples(HashedTexts.of(pa.array(texts)), groups, similarity).tolist() == expected.tolist()


def test_samples_of_some_groups_are_compared_as_those_of_all_are() -> None:
    texts, groups = HashedTexts.of(pa.array(TEXTS["templated"])), np.arange(300) // 4
    whole = alike_samples(texts, groups, 0.8)
    assert (whole // 4).tolist() == groups.tolist() and (whole != np.arange(300)).any()
    some = np.concatenate([np.arange(40, 80), np.arange(8, 16), np.arange(200, 300)])
    found = some[alike_samples(texts.take(some), groups[some], 0.8)]
    assert found.tolist() == whole[some].tolist()
    assert alike_samples(texts.take(some[:0]), groups[:0], 0.8).tolist() == []


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8, 1.0])
def test_rare_shingles_miss_no_pair(similarity: float) -> None:
    draw, index, sets = random.Random(0), RareShingles(similarity), list[set[int]]()
    for row in range(300):
        own = set(draw.sample(range(15), draw.randrange(1, 12)))
        beginning = sorted(own)[: prefix_length(len(own), similarity)]
        alike = {other for other, held in enumerate(sets) if len(own & held) / len(own | held) >= similarity}
        found = index.may_be_alike(len(own), beginning)
        assert alike <= found and (row < 100 or len(found) < row)
        index.add(row, len(own), beginning)
        sets.append(own)


def test_bands_find_99_of_100_pairs_at_the_threshold() -> None:
    for similarity in np.linspace(0.05, 1.0, 96):
        bands, rows = band_shape(float(similarity))
        assert bands * rows <= 128
        assert found_share(float(similarity), bands, rows) >= 0.99
    assert band_shape(0.8) == (21, 6)


def test_other_processes_and_thread_counts_find_the_same() -> None:
    texts = random_texts(300, 3)
    program = (
        "import json, sys, pyarrow as pa; from distill_data.filters.near_duplicates import first_alike; "
        "print(json.dumps(first_alike(pa.array(json.load(sys.stdin)), 0.8).tolist()))"
    )
    found = first_alike(pa.array(texts), 0.8).tolist()
    for threads, seed in (("1", "0"), ("4", "7")):
        settings = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed}
        said = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            check=True,
            env=settings,
        )
        assert json.loads(said.stdout) == found
