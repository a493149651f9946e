from __future__ import annotations

import json
import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest

from distill_data.corpus.tagging import promote_version, remove_tag, roll_back, stable_moves, tag_version
from distill_data.corpus.tags import TAGS_NAME, named, named_before, read_tags
from distill_data.corpus.versions import corpus_folder, find_version, list_tags, list_versions, next_version
from distill_data.errors import CorpusError, InputError


def add_version(root: Path, number: int) -> None:
    folder = corpus_folder(root, "sums") / f"v{number}"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")


@pytest.fixture
def root(tmp_path: Path) -> str:
    for number in (1, 2, 3):
        add_version(tmp_path, number)
    return str(tmp_path)


def stable(root: str) -> int | None:
    return list_tags(root, "sums").get("stable")


def promote(root: str, version: int) -> int | None:
    return promote_version(root, "sums", version)[-1].version


def test_a_tag_names_a_version_wherever_a_version_is_named(root: str) -> None:
    assert tag_version(root, "sums@v2", "best").version == 2
    assert find_version(root, "sums@best").name == "v2"
    assert tag_version(root, "sums", "best").version == 3  # NAME is the latest
    assert tag_version(root, "sums@best", "stable").version == 3  # of a tag
    assert list_tags(root, "sums") == {"best": 3, "stable": 3}


def test_rolling_back_walks_through_what_the_tag_named(root: str) -> None:
    for version in (1, 2, 3):
        promote(root, version)
    assert roll_back(root, "sums").version == 2
    moved = roll_back(root, "sums", "stable")
    assert (moved.version, moved.before) == (1, 2)
    with pytest.raises(CorpusError, match="named no other version before: set it with"):
        roll_back(root, "sums")
    tag_version(root, "sums@v3", "stable")
    assert roll_back(root, "sums").version == 1  # 2 was rolled back: it is not what was there before
    assert [move.how for move in stable_moves(root, "sums")] == ["set"] * 3 + ["rollback"] * 2 + ["set", "rollback"]


def test_a_version_that_is_gone_is_passed_over(root: str) -> None:
    for version in (1, 2, 3):
        promote(root, version)
    (corpus_folder(root, "sums") / "v2" / "manifest.json").unlink()
    assert roll_back(root, "sums").version == 1


def test_a_number_that_a_tag_knew_is_not_given_again(root: str) -> None:
    """Else the tag would name a version that nobody promoted."""
    folder = corpus_folder(root, "sums")
    latest = max(list_versions(root, "sums"))
    promote(root, latest)
    shutil.rmtree(folder / f"v{latest}")
    assert next_version(folder) == latest + 1
    tag_version(root, f"sums@v{latest - 1}", "best")
    shutil.rmtree(folder / f"v{latest - 1}")
    assert next_version(folder) == latest + 1


def test_a_removed_tag_names_nothing_and_can_be_brought_back(root: str) -> None:
    promote(root, 1)
    promote(root, 2)
    assert remove_tag(root, "sums", "stable").before == 2
    with pytest.raises(CorpusError, match=r"sums@stable does not exist .* use one of sums@v1, sums@v2, sums@v3"):
        find_version(root, "sums@stable")
    with pytest.raises(CorpusError, match="sums has no tag 'stable'"):
        remove_tag(root, "sums", "stable")
    assert roll_back(root, "sums").version == 2
    assert named_before(stable_moves(root, "sums")) == [1]


def test_a_build_moves_no_tag_back_that_a_person_moved(root: str) -> None:
    for version in (1, 2, 3):
        assert promote(root, version) == version
    roll_back(root, "sums")
    assert promote(root, 3) == 2  # it was there when the person moved the tag
    tag_version(root, "sums@v1", "stable")
    assert promote(root, 2) == promote(root, 3) == 1
    add_version(Path(root), 4)
    assert promote(root, 4) == 4
    assert promote(root, 3) == 3  # a build moved it last: an older config gives an older version
    remove_tag(root, "sums", "stable")
    assert promote(root, 4) is None
    assert list_tags(root, "sums") == {}


def test_promoting_what_is_promoted_writes_nothing(root: str) -> None:
    promote(root, 3)
    file = corpus_folder(root, "sums") / TAGS_NAME
    before = file.stat().st_ino
    promote(root, 3)
    assert file.stat().st_ino == before


@pytest.mark.parametrize("tag", ["v3", "v", "1st", "a b", "", "a/b", "é"])
def test_what_is_no_tag_is_refused(root: str, tag: str) -> None:
    with pytest.raises(InputError, match="is no tag"):
        tag_version(root, "sums@v1", tag)
    assert not (corpus_folder(root, "sums") / TAGS_NAME).exists()


def test_a_damaged_file_is_named_and_not_overwritten(root: str) -> None:
    promote(root, 3)
    file = corpus_folder(root, "sums") / TAGS_NAME
    content = json.loads(file.read_text())
    content["tags"]["stable"][0]["version"] = 1
    file.write_text(json.dumps(content))
    for act in (lambda: named(file.parent), lambda: promote(root, 2), lambda: find_version(root, "sums@stable")):
        with pytest.raises(CorpusError, match=r"tags\.json is damaged .*does not match the sha256"):
            act()
    assert json.loads(file.read_text()) == content
    assert find_version(root, "sums@v3").name == "v3"  # versions do not need it


def _tag_often(root: str, tag: str, times: int) -> None:
    for number in range(times):
        tag_version(root, f"sums@v{number % 3 + 1}", tag)


def test_moves_of_several_processes_are_all_kept(root: str) -> None:
    context = get_context("spawn")
    writers = [context.Process(target=_tag_often, args=(root, tag, 30)) for tag in ("a", "a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    moves = read_tags(corpus_folder(root, "sums"))
    assert (len(moves["a"]), len(moves["b"])) == (60, 30)
