# pyarrow makes its compute functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from distill_data.dedup_config import BenchmarkSource, Decontaminate
from distill_data.errors import InputError
from distill_data.filters import decontamination
from distill_data.filters.benchmark_texts import load_benchmark, load_benchmarks, load_screened_by
from distill_data.filters.decontamination import Benchmarks, BenchmarkTexts, counts_by_benchmark, details
from distill_data.filters.normalise import token_hashes, tokens

QUESTION = (
    "Janet's ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her friends "
    "every day with four. How much in dollars does she make every day at the farmers' market?"
)
NUMBERED = "Add 12 to 7, take 3 from 9, add 15 to 4, take 8 from 20, add 31 to 6, take 2 from 11."
SHORT = "What is the capital of France?"
CHINESE = "小明有三个苹果他给了小红一个苹果然后又买了五个"


def index(*texts: str, name: str = "exam", common: int = 10) -> Benchmarks:
    return Benchmarks([BenchmarkTexts(name, pa.array(texts, pa.string()))], common=common)


def rows(benchmarks: Benchmarks, *texts: str) -> list[int]:
    return benchmarks.touched(pa.array(texts, pa.string()))["row"].to_pylist()


def slow(benchmarks: dict[str, list[str]], texts: list[str], size: int, common: int) -> list[tuple[int, str, int, str]]:
    """Row, benchmark, n-grams and the first of them, by sets of word tuples."""
    found = []
    for row, held in enumerate(grams(texts, size)):
        for name, asked in benchmarks.items():
            counts: dict[tuple[str, ...], int] = {}
            for text in grams(asked, size):
                counts |= {gram: counts.get(gram, 0) + 1 for gram in set(text)}
            shared = [gram for gram in held if 0 < counts.get(gram, 0) <= common]
            if shared:
                found.append((row, name, len(shared), " ".join(shared[0])))
    return found


def grams(texts: list[str], size: int) -> list[list[tuple[str, ...]]]:
    made = [words or [] for words in tokens(pa.array(texts, pa.string())).to_pylist()]
    return [[tuple(t[at : at + size]) for at in range(max(len(t) - size + 1, 1))] if t else [] for t in made]


def random_texts(count: int, words: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(str(draw.randrange(words)) for _ in range(draw.randrange(12))) for _ in range(count)]


@pytest.mark.parametrize(("size", "common"), [(1, 2), (2, 1), (3, 10), (13, 10)])
def test_as_if_all_n_grams_were_compared(size: int, common: int) -> None:
    asked = {"one": random_texts(60, 5, 0), "two": [*random_texts(5, 9, 1), ""], "empty": []}
    texts = random_texts(200, 9, 2)
    made = [BenchmarkTexts(name, pa.array(held, pa.string())) for name, held in asked.items()]
    found = Benchmarks(made, size, common).touched(pa.array(texts))
    lengths = [len(held) for held in grams(texts, size)]
    expected = slow(asked, texts, size, common)
    assert expected or size == 13
    assert found.drop_columns(["share"]).to_pylist() == [
        dict(zip(("row", "benchmark", "n_grams", "example"), row, strict=True)) for row in expected
    ]
    assert found["share"].to_pylist() == [count / lengths[row] for row, _, count, _ in expected]


def test_planted_texts_are_found_and_changed_numbers_are_not() -> None:
    benchmarks = index(QUESTION, NUMBERED, SHORT)
    inside = f"Here is a riddle for you, my friend: {QUESTION.upper().replace('.', ' -')} Think step by step."
    other_numbers = "".join(str((int(letter) + 1) % 10) if letter.isdigit() else letter for letter in NUMBERED)
    assert rows(benchmarks, QUESTION, inside, NUMBERED, other_numbers, "Who is Janet?") == [0, 1, 2]
    found = benchmarks.touched(pa.array([inside]))
    assert found["n_grams"].to_pylist() == [len(grams([QUESTION], 13)[0])]
    assert found["example"].to_pylist() == ["janet s ducks lay 16 eggs per day she eats three for breakfast"]


def test_twelve_words_are_not_enough_and_thirteen_are() -> None:
    benchmarks, words = index(QUESTION), QUESTION.split()
    assert rows(benchmarks, "So " + " ".join(words[14:26]) + " so", "So " + " ".join(words[14:27]) + " so") == [1]


def test_short_texts_count_only_as_a_whole() -> None:
    assert rows(index(SHORT), SHORT.upper(), f"{SHORT} And of Spain?", "capital of France", "") == [0]
    assert rows(index("", "?!"), "", "?!", "one") == []


def test_chinese_is_compared_by_characters() -> None:
    assert rows(index(CHINESE), f"问题\N{FULLWIDTH COLON}{CHINESE[3:17]}吗", CHINESE[:12], CHINESE[:12] + "梨") == [0]


def test_a_template_of_a_benchmark_is_not_its_text() -> None:
    template = "Answer the following question with one letter and nothing else but one letter please now: {} is what?"
    texts = [template.format(f"word{number} and word{number + 1}") for number in range(5)]
    prompt = template.format("my own question about rivers")
    assert rows(index(*texts, common=5), prompt) == [0]
    assert rows(index(*texts, common=4), prompt) == []
    assert rows(index(*texts[:1] * 9, common=1), texts[0]) == []


def test_slices_and_order_change_nothing() -> None:
    texts = random_texts(9000, 6, 3)
    benchmarks = Benchmarks([BenchmarkTexts("exam", pa.array(random_texts(300, 6, 4)))], 4, 1000)
    whole = benchmarks.touched(pa.array(texts))
    chunks = pa.chunked_array([texts[:1], texts[1:5000], texts[5000:]])
    assert len(whole) > 1000 and benchmarks.touched(chunks).equals(whole)
    order = np.random.default_rng(0).permutation(len(texts))
    moved = benchmarks.touched(pa.array([texts[row] for row in order]))
    assert sorted(order[moved["row"].to_numpy()]) == whole["row"].to_pylist()
    assert benchmarks.touched(pa.array([], pa.string())).num_rows == 0
    assert Benchmarks([]).touched(pa.array(texts[:9])).num_rows == 0


def test_equal_hashes_of_other_words_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_length(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
        words = tokens(texts).flatten().to_pylist()
        return token_hashes(texts)[0], np.array([len(word) for word in words], np.uint64)

    monkeypatch.setattr("distill_data.filters.shingles.token_hashes", by_length)
    assert rows(index("one two six", "red"), "two one ten", "one two six", "red", "sad") == [1, 2]


def test_answers_are_compared_where_they_are_given() -> None:
    made = BenchmarkTexts("exam", pa.array([SHORT]), pa.array([QUESTION, None]))
    assert rows(Benchmarks([made]), f"Explain: {QUESTION}", SHORT) == [0, 1]


def test_detail_names_the_benchmark_and_the_share_decides() -> None:
    two = Benchmarks([BenchmarkTexts(name, pa.array(held)) for name, held in (("a", [QUESTION]), ("b", [NUMBERED]))])
    texts = pa.array(["mine", f"{NUMBERED} {QUESTION}", NUMBERED])
    found = two.touched(texts)
    first, both, last = details(found, 3).to_pylist()
    assert first is None
    assert both.startswith("benchmark a: 26 n-grams, such as 'janet s ducks lay")
    assert last.startswith("benchmark b: ") and "such as 'add 12 to 7 take" in last
    assert details(found.filter(pc.greater(found["share"], 0.6)), 3).to_pylist() == [None, None, last]
    assert details(found.slice(0, 0), 2).to_pylist() == [None, None]
    assert counts_by_benchmark(found) == {"a": 1, "b": 2} and counts_by_benchmark(found.slice(0, 0)) == {}


def test_recited_texts_are_long_enough_and_beyond_what_is_allowed() -> None:
    benchmarks = index(QUESTION, SHORT, "42")
    said = f"Let me recall the question. {QUESTION} Hmm."
    assert rows(benchmarks, said, SHORT, "42", "Something else") == [0, 1, 2]
    assert benchmarks.recited(pa.array([said, SHORT, "42", None]))["row"].to_pylist() == [0]
    ngrams = len(grams([QUESTION], 13)[0])
    assert [len(benchmarks.recited(pa.array([said]), most)) for most in (ngrams - 1, ngrams)] == [1, 0]


def test_benchmarks_are_read_as_prompts_are(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"
    lines = [{"question": SHORT, "context": "007", "answer": 5}, {"question": QUESTION, "context": None, "answer": "x"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    section = BenchmarkSource(path=str(path), text=["question", "context"], answer="answer")
    read, revision = load_benchmark(section)
    assert (read.name, read.answers, revision["path"]) == ("exam", None, str(path))
    assert read.texts.to_pylist() == [SHORT, QUESTION, "007", ""]
    answers = load_benchmark(section, answers=True)[0].answers
    assert answers is not None and answers.to_pylist() == ["5", "x"]
    assert rows(Benchmarks([read]), f"Please answer: {QUESTION}", "007", "") == [0, 1]
    with pytest.raises(InputError, match=r"source 'exam': .* has no column 'body': use one of 'question'"):
        load_benchmark(BenchmarkSource(path=str(path), text=["body"]))


def test_what_is_compared_is_pinned_and_a_change_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "exam.jsonl"

    def write(question: str, answer: str = "18", more: str = "") -> None:
        path.write_text(json.dumps({"q": question, "a": answer, "more": more}), encoding="utf-8")

    def hash_of(answers: bool = False) -> str:
        return load_benchmarks(section(answers))[1]["exam"]["texts_sha256"]

    def section(answers: bool = False) -> Decontaminate:
        source = BenchmarkSource(path=str(path), text=["q"], answer="a")
        return Decontaminate(benchmarks=[source], answers=answers)

    write(QUESTION)
    facts = load_benchmarks(section())[1]
    assert facts["exam"]["texts"] == 1 and facts["exam"]["path"] == str(path)
    first, with_answers = hash_of(), hash_of(answers=True)
    write(QUESTION, more="not compared")
    assert (hash_of(), hash_of(answers=True)) == (first, with_answers) and first != with_answers
    assert load_screened_by(section(), facts).recited(pa.array([QUESTION]))["row"].to_pylist() == [0]
    write(QUESTION, answer="19")
    assert hash_of() == first and hash_of(answers=True) != with_answers
    write(NUMBERED)
    with pytest.raises(InputError, match=r"benchmark 'exam' has changed since .*: build again"):
        load_screened_by(section(), facts)


def test_reasons_have_one_line() -> None:
    assert all("\n" not in line for line in decontamination.CONTAMINATION_REASONS.values())
