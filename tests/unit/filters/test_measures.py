from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from distill_data.filters.flat_text import FlatText, Traces
from distill_data.filters.measures import MEASURES
from distill_data.filters.personal_data import is_iban, is_public_ip, passes_luhn
from tests.unit.filters import slow_measures

SCHEMA = {
    "completion": pa.string(),
    "answer": pa.string(),
    "prompt": pa.string(),
    "completion_tokens": pa.int32(),
    "mean_logprob": pa.float32(),
    "sampled_logprobs": pa.list_(pa.float32()),
    "support_counts": pa.list_(pa.uint8()),
    "support_logprobs": pa.list_(pa.float16()),
}
PIECES = [
    "the", "cat", "multiplication", r"\frac{1}{2}", "a" * 70, "b" * 64 + "c" * 9, "x", "β", "λόγος", "привет",
    "用", "汉字", "Python用", "カナ", "안녕하세요", "😀", "é", "über", "\u3000", "—", "def f(x):", "```", "return 1",
    "};", "for x in y:", "if (a) {", "    indented", "~~~", "import os",
]  # fmt: skip
GAPS = [" ", " ", " ", "\n", "\n\n", "\n \n", "\r\n\r\n", "\t", "", "\n\n\n", "  "]


def random_text(source: random.Random) -> str:
    few = source.sample(PIECES, source.randint(1, len(PIECES)))
    size = source.choice([0, 1, 3, 12, 40, 120])
    return "".join(source.choice(few) + source.choice(GAPS) for _ in range(size))


def measured(name: str, column: pa.Array | pa.ChunkedArray | list[Any], **others: Any) -> np.ndarray:
    first = MEASURES[name].reads[0]
    columns = {first: column, **others}
    table = pa.table({key: value if isinstance(value, pa.ChunkedArray | pa.Array) else pa.array(value, SCHEMA[key])
                      for key, value in columns.items()})  # fmt: skip
    found = MEASURES[name].of(Traces(table))
    assert found.dtype == np.float32 and found.shape == (table.num_rows,)
    return found


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("longest_paragraph", slow_measures.longest_paragraph),
        ("repetition", slow_measures.repetition),
        ("code_share", lambda text: slow_measures.code_share(text, "")),
    ],
)
def test_as_plain_python_does_it(name: str, slow: Callable[[str], float]) -> None:
    source = random.Random(name)
    for _ in range(30):
        texts = [random_text(source) for _ in range(source.randint(1, 12))]
        prompts = {"prompt": [""] * len(texts)} if name == "code_share" else {}
        found = measured(name, texts, **prompts)
        np.testing.assert_allclose(found, [slow(text) for text in texts], rtol=1e-6, err_msg=repr(texts))


@pytest.mark.parametrize("name", ["longest_paragraph", "repetition", "other_script_share"])
def test_all_planes_of_unicode_as_plain_python_does_it(name: str) -> None:
    source = random.Random(name)
    codes = [chr(code) for code in range(0, 0x110000, 7) if not 0xD800 <= code < 0xE000 and chr(code) not in "$`\\</"]
    source.shuffle(codes)
    texts = ["".join(codes[start : start + 300]) for start in range(0, len(codes), 300)]
    texts += ["".join(source.choices("ab \n\t\r\0\x1f" + "".join(source.sample(codes, 5)), k=80)) for _ in range(200)]
    found = measured(name, texts)
    np.testing.assert_allclose(found, [getattr(slow_measures, name)(text) for text in texts], rtol=1e-6, atol=1e-7)


def test_compression_is_that_of_every_text_alone() -> None:
    source = random.Random(2)
    texts = [random_text(source) for _ in range(50)]
    ratios = [
        len(raw) / len(pa.compress(raw, codec="lz4_raw", asbytes=True)) if raw else np.nan
        for raw in map(str.encode, texts)
    ]
    np.testing.assert_allclose(measured("compression", texts), ratios, rtol=1e-6)


def test_other_scripts_as_plain_python_does_it() -> None:
    source = random.Random(3)
    plain = [piece for piece in PIECES if not set(piece) & set("\\`")]
    texts = [
        "".join(source.choice(plain) + source.choice(GAPS) for _ in range(source.randint(0, 60))) for _ in range(300)
    ]
    slow = [slow_measures.other_script_share(text) for text in texts]
    np.testing.assert_allclose(measured("other_script_share", texts), slow, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["longest_paragraph", "repetition", "compression", "other_script_share", "code_share",
                                  "leakage", "personal_data"])  # fmt: skip
def test_slices_chunks_nulls_and_empty_tables(name: str) -> None:
    source = random.Random(5)
    texts = [random_text(source) if source.random() > 0.2 else None for _ in range(40)]
    others = {"prompt": pa.array([""] * 40)} if name == "code_share" else {}
    alone = np.concatenate([measured(name, [text], **{key: [""] for key in others}) for text in texts])
    whole = pa.array(texts, pa.string())
    np.testing.assert_array_equal(measured(name, whole, **others), alone)
    assert np.isnan(alone[[text is None for text in texts]]).all()
    part = {key: value.slice(7, 11) for key, value in others.items()}
    np.testing.assert_array_equal(measured(name, whole.slice(7, 11), **part), alone[7:18])
    chunked = pa.chunked_array([whole.slice(0, 3), whole.slice(3, 0), whole.slice(3)])
    np.testing.assert_array_equal(measured(name, chunked, **others), alone)
    assert not len(measured(name, [], **{key: [] for key in others}))
    assert np.isnan(measured(name, [None], **{key: [None] for key in others})).all()


def test_flat_text_has_a_newline_on_both_sides_of_every_row() -> None:
    text = FlatText.of(pa.chunked_array([pa.array(["skipped", "ab", None, "用"]).slice(1)]))
    assert text.text.tobytes().decode() == "\nab\n\n用\n"
    assert text.offsets.tolist() == [1, 4, 5, 9] and text.valid.tolist() == [True, False, True]
    assert text.rows_with([b"b", "用".encode()]).tolist() == [True, False, True]
    assert text.rows_with([b"\na"]).tolist() == [True, False, False]
    assert text.rows_with([b"b\n", b"\n\n"]).tolist() == [True, True, False]


def random_labels(source: random.Random) -> tuple[list[list[int]], list[list[float]], list[list[float]]]:
    counts, supports, sampled = [], [], []
    for _ in range(source.randint(1, 9)):
        counts.append([source.choice([0, 1, 1, 2, 5, 20]) for _ in range(source.choice([0, 1, 30]))])
        kept: list[float] = []
        for count in counts[-1]:
            weights = [source.random() ** 4 + 1e-7 for _ in range(count + 1)]
            kept += sorted((float(np.log(weight / sum(weights))) for weight in weights[:count]), reverse=True)
        supports.append([-np.inf if source.random() < 0.02 else value for value in kept])
        sampled.append([-10 * source.random() for _ in counts[-1]])
    return counts, supports, sampled


def test_labels_as_plain_python_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.filters.label_measures._PIECE_VALUES", 100)
    source = random.Random(8)
    for _ in range(40):
        counts, supports, sampled = random_labels(source)
        half = pa.array([np.array(row, np.float16) for row in supports], pa.list_(pa.float16()))
        found = measured("mean_entropy", counts, support_logprobs=half)
        slow = [slow_measures.mean_entropy(*row) for row in zip(counts, supports, strict=True)]
        np.testing.assert_allclose(found, slow, rtol=2e-4, atol=2e-5)
        least = [min(row) if row else np.nan for row in sampled]
        np.testing.assert_allclose(measured("least_logprob", sampled), least, rtol=1e-6)
        cut = {"support_logprobs": half.slice(1)}
        sliced = measured("mean_entropy", pa.array(counts, SCHEMA["support_counts"]).slice(1), **cut)
        np.testing.assert_array_equal(sliced, found[1:])


def test_supports_are_summed_as_numpy_sums_them() -> None:
    """To the last bit: what a version keeps must not depend on who adds."""
    from distill_data.filters.label_loops import support_terms

    draw = np.random.default_rng(4)
    counts = draw.permutation(np.tile(np.arange(256), 6)).astype(np.uint8)
    p_and_term = draw.random((2**16, 2), np.float32)
    bits = draw.integers(0, 2**16, counts.sum(), np.uint16)
    inside, terms = support_terms(bits, counts, p_and_term)
    starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))[:-1]
    assert (inside[counts > 0] == np.add.reduceat(p_and_term[bits, 0], starts[counts > 0])).all()
    assert not inside[counts == 0].any() and (terms == p_and_term[bits, 1]).all()


def test_labels_that_are_not_there() -> None:
    assert np.isnan(measured("mean_entropy", [None, []], support_logprobs=[None, []])).all()
    assert np.isnan(measured("least_logprob", [None, []])).all()
    assert measured("least_logprob", [[np.nan, -2.0], [-1.0, -np.inf]]).tolist() == [-2.0, -np.inf]
    np.testing.assert_array_equal(measured("mean_logprob", [-0.5, None]), [-0.5, np.nan])
    np.testing.assert_array_equal(measured("tokens", [7, None]), [7, np.nan])


def test_entropies_that_are_known() -> None:
    even = np.log(np.full(4, 0.25, np.float16))
    sure = np.zeros(1, np.float16)
    half = np.log(np.full(1, 0.5, np.float16))  # and a half in the tail
    table = pa.array([even, np.concatenate([even, sure]), half], pa.list_(pa.float16()))
    found = measured("mean_entropy", [[4], [4, 1], [1]], support_logprobs=table)
    np.testing.assert_allclose(found, [np.log(4), np.log(4) / 2, np.log(2)], rtol=3e-3)


@pytest.mark.parametrize(
    "text",
    [
        "Write to jane.doe@uni-bonn.de for details.", "call +49 228 73 1234 56", "Tel. (212) 664-7665",
        "card 4111 1111 1111 1111", "IBAN DE89 3704 0044 0532 0130 00 please", "the host 8.8.8.8 answers",
    ],
)  # fmt: skip
def test_personal_data(text: str) -> None:
    assert measured("personal_data", [text, f"x{'y' * 900}\n{text}"]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "name@example.com", "corpus@v3 and @dataclass", "123456 + 654321 = 777777", "3.14159265358979", "x = +12 345",
        "127.0.0.1 or 192.168.0.7", "version 1.2.3", "4111 1111 1111 1112", "12345678901234567890",
        "GB00 1234 5678 9012", "2024-01-02 03:04:05", "100,000,000,000,000", "1-800", "f(x) = 5+12 34 56",
    ],
)  # fmt: skip
def test_numbers_that_are_nobodys(text: str) -> None:
    assert measured("personal_data", [text]).tolist() == [0.0]


def test_check_sums() -> None:
    assert passes_luhn("79927398713") and not passes_luhn("79927398710")
    assert is_iban("GB82 WEST 1234 5698 7654 32") and not is_iban("GB82 WEST 1234 5698 7654 33")
    assert is_public_ip("1.1.1.1") and not is_public_ip("10.0.0.1") and not is_public_ip("1.1.1.256")
