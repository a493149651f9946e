from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill_data.errors import InputError
from distill_data.prompt_config import DatasetPrompts, Mode
from distill_data.prompts.dataset import open_dataset
from distill_data.records import Prompt

TEXTS = ["  这部电影\r\n很棒。 ", "e\u0301 and é", "مرحبا 🙂\t\u2028\u00a0", "NA", "2024-01-01", 'say "hi", ok']


def read(path: Path | str, mode: Mode = "generate", **options: Any) -> list[Prompt]:
    if "messages" not in options:
        options.setdefault("prompt", "question")
    prompts, _ = open_dataset(DatasetPrompts(source="dataset", path=str(path), **options), mode)
    return list(prompts)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text(text, encoding="utf-8", newline="")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8", newline="")
    else:
        import csv

        with path.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".json", ".csv"])
def test_text_survives_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    rows = [{"question": text, "answer": "007", "other": 1} for text in TEXTS]
    prompts = read(write(tmp_path / f"mine{suffix}", rows), reference="answer")
    assert [prompt.messages for prompt in prompts] == [[{"role": "user", "content": text}] for text in TEXTS]
    assert {prompt.reference for prompt in prompts} == {"007"}
    assert [prompt.metadata for prompt in prompts] == [{"row": row} for row in range(len(TEXTS))]
    assert prompts[0].source == "mine"


def test_folder_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.parquet", [{"question": text, "answer": 3} for text in TEXTS])
    write(folder / "test.parquet", [{"question": "held out", "answer": 4}])
    prompts = read(folder, reference="answer")
    assert [prompt.messages[0]["content"] for prompt in prompts] == TEXTS
    assert prompts[0].reference == "3"
    assert [prompt.messages[0]["content"] for prompt in read(folder, split="test")] == ["held out"]
    assert len(read(folder, split="train[:2]")) == 2
    with pytest.raises(InputError, match=r"cannot be loaded \(Unknown split \"dev\"\. Should be one of"):
        read(folder, split="dev")
    with pytest.raises(InputError, match=r"no column 'text': use one of 'question', 'answer'"):
        read(folder, prompt="text")


def test_chat_column_keeps_its_messages(tmp_path: Path) -> None:
    chat = [
        {"role": "system", "content": " be brief "},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "more"},
    ]
    for name in ("c.jsonl", "c.parquet"):
        (prompt,) = read(write(tmp_path / name, [{"chat": chat}]), messages="chat")
        assert prompt.messages == chat


@pytest.mark.parametrize(
    ("chat", "message"),
    [
        ("hi", "is no list of {role, content}: it is str 'hi'"),
        ([{"role": "user"}], "is no list of {role, content}"),
        ([{"role": "user", "content": ["x"]}], "content is list ['x']: make it text"),
        ([{"role": "user", "content": "x", "name": "k"}], "has a message with 'name'"),
        ([{"role": "assistant", "content": "x"}], "ends with an assistant message"),
    ],
)
def test_bad_chat_is_refused_by_row(tmp_path: Path, chat: Any, message: str) -> None:
    good = [{"role": "user", "content": "x"}]
    path = write(tmp_path / "c.jsonl", [{"chat": good}, {"chat": chat}])
    with pytest.raises(InputError) as error:
        read(path, messages="chat")
    assert message in str(error.value)
    assert "source 'c', row 1, column 'chat'" in str(error.value)


def test_references_become_text(tmp_path: Path) -> None:
    values = [1, 2.5, True, None, " x "]
    path = write(tmp_path / "r.jsonl", [{"question": "q", "answer": value} for value in values])
    prompts = read(path, reference="answer")
    assert [prompt.reference for prompt in prompts] == ["1", "2.5", "True", None, " x "]
    write(path, [{"question": "q", "answer": ["x"]}])
    with pytest.raises(InputError, match=r"row 0, column 'answer' is list \['x'\]: make it text"):
        read(path, reference="answer")


def test_dates_are_never_guessed_at(tmp_path: Path) -> None:
    folder = tmp_path / "dates"
    folder.mkdir()
    write(folder / "a.jsonl", [{"question": "q", "answer": "2024-01-01"}])
    with pytest.raises(InputError, match="was read as a date: give a single file"):
        read(folder, reference="answer")
    assert read(folder / "a.jsonl", reference="answer")[0].reference == "2024-01-01"


def test_number_where_text_is_due(tmp_path: Path) -> None:
    path = write(tmp_path / "n.jsonl", [{"question": "q"}, {"question": 3}])
    with pytest.raises(InputError, match=r"source 'n', row 1, column 'question' is int 3: make it text"):
        read(path)


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"question": "\\ud83d"}')
    with pytest.raises(InputError, match=r"row 0.* half a character"):
        read(path)


def test_limit_takes_the_top_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text('{"question": "a"}\n\n{"question": "b"}\nbroken\n')
    assert [prompt.messages[0]["content"] for prompt in read(path, limit=2)] == ["a", "b"]
    with pytest.raises(InputError, match=r"l\.jsonl, line 4 is not JSON \(Expecting value\)"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", b"", "has no rows"),
        ("e.csv", b"question\n", "has no rows"),
        ("e.json", b"[]", "has no rows"),
        ("e.csv", b"question\na,b\n", "line 2 has 2 values for 1 columns"),
        ("e.csv", b'question\n"a', "is not CSV"),
        ("e.csv", "question\né".encode("latin1"), "is not UTF-8"),
        ("e.jsonl", b"[1]\n", "holds list where a row is due"),
        ("e.json", b'[{"question": "a"},\n{]', "line 2 is not JSON"),
        ("e.parquet", b"PAR1 no", "is no readable Parquet file"),
        ("e.md", b"hello", "is no .parquet, .jsonl, .json, .csv, .txt file"),
        ("e.jsonl", b'{"a": 1, "b": 2}', "has no column 'question': use one of 'a', 'b'"),
    ],
)
def test_bad_file_gets_one_clear_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl' does not exist"):
        read("nowhere.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"a single file has no split 'test'.*limit"):
        read(write(tmp_path / "a.jsonl", [{"question": "q"}]), split="test")
    with pytest.raises(InputError, match=r"dataset 'org/name' cannot be loaded \(.*\): check path"):
        read("org/name")


def test_revision_names_what_was_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"question": "q"}])
    source = DatasetPrompts(source="dataset", path=str(path), prompt="question")
    _, first = open_dataset(source)
    assert set(first) == {"path", "sha256"}
    path.write_text('{"question": "r"}')
    _, second = open_dataset(source)
    assert first["sha256"] != second["sha256"]


@pytest.mark.parametrize("name", ["c.jsonl", "c.parquet"])
def test_completions_to_score_come_from_their_column_as_they_are(tmp_path: Path, name: str) -> None:
    rows = [{"question": f"q{row}", "said": text} for row, text in enumerate([*TEXTS, None])]
    prompts = read(write(tmp_path / name, rows), "score", completion="said")
    assert [prompt.completion for prompt in prompts] == [*TEXTS, ""]
    assert [prompt.messages[0]["content"] for prompt in prompts] == [row["question"] for row in rows]
    with pytest.raises(InputError, match=r"no column 'answer': use one of 'question', 'said'"):
        read(tmp_path / name, "score", completion="answer")


def test_a_number_is_no_completion(tmp_path: Path) -> None:
    path = write(tmp_path / "n.jsonl", [{"question": "q", "said": 3}])
    with pytest.raises(InputError, match=r"source 'n', row 0, column 'said' is int 3: make it text"):
        read(path, "score", completion="said")


def test_the_last_message_of_a_chat_is_what_is_scored(tmp_path: Path) -> None:
    asked = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "?"},
    ]
    path = write(tmp_path / "c.jsonl", [{"chat": [*asked, {"role": "assistant", "content": " é\n"}]}, {"chat": []}])
    first, second = read(path, "score", messages="chat")
    assert (first.messages, first.completion) == (asked, " é\n")
    assert (second.messages, second.completion) == ([], "")
    with pytest.raises(InputError, match="ends with an assistant message"):
        read(path, messages="chat")


def test_a_chat_without_an_answer_has_nothing_to_score_but_its_completion_column(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hi"}]
    path = write(tmp_path / "c.jsonl", [{"chat": chat, "said": "ho"}])
    with pytest.raises(InputError, match=r"'chat' ends with a message of role 'user', so there is no completion"):
        read(path, "score", messages="chat")
    (prompt,) = read(path, "score", messages="chat", completion="said")
    assert (prompt.messages, prompt.completion) == (chat, "ho")
    write(path, [{"chat": [*chat, {"role": "assistant", "content": "x"}], "said": "ho"}])
    with pytest.raises(InputError, match="ends with an assistant message: end prompts with the user's message"):
        read(path, "score", messages="chat", completion="said")


def test_a_text_file_has_a_row_a_line(tmp_path: Path) -> None:
    file = tmp_path / "good.txt"
    file.write_text("这部电影很棒。\n\n  a great film \n", encoding="utf-8")
    prompts = read(file, prompt="text", reference_text="positive")
    assert [prompt.messages[0]["content"] for prompt in prompts] == ["这部电影很棒。", "a great film"]
    assert {prompt.reference for prompt in prompts} == {"positive"}


def test_a_file_of_a_python_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "reviews_of_films"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemError('it was imported')")
    (package / "data" / "good.txt").write_text("a great film")
    monkeypatch.syspath_prepend(str(tmp_path))
    (prompt,) = read("package://reviews_of_films/data/good.txt", prompt="text")
    assert (prompt.messages[0]["content"], prompt.source) == ("a great film", "good")
    for name, expected in {
        "package://reviews_of_films/data/bad.txt": "holds no data/bad.txt: use one of good.txt",
        "package://no_such_package/x.txt": "is not installed: pip install --no-deps no-such-package",
        "package://reviews_of_films": "is not of the form package://PACKAGE/FILE",
    }.items():
        with pytest.raises(InputError, match=expected):
            read(name, prompt="text")
