from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from distill_data.build import assemble_version, generate_missing, plan_build
from distill_data.build_report import BuildReport, is_promoted, promote_version, report_build
from distill_data.config import Config
from distill_data.corpus.manifest import Manifest, read_manifest
from distill_data.corpus.read import open_corpus
from distill_data.corpus.tagging import roll_back, tag_version
from distill_data.corpus.versions import find_version, list_tags
from distill_data.errors import CorpusError, GateError
from distill_data.promotion import Promotion, promote
from distill_data.report.build import build_summary
from distill_data.screening import pinned, prompts_of
from tests.pool.replay_job import InlinePool, make_config, plan, write_prompts
from tests.unit.test_build import build_corpus, changed, with_samples

JUDGED: dict[str, Any] = {"judge": {"verifier": "exact"}}


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Config:
    return make_config(tmp_path / "root", tiny_model, write_prompts(tmp_path / "p.jsonl", 20), **JUDGED)


def manifest_of(report: BuildReport) -> Manifest:
    return read_manifest(Path(report.path))


def built(config: Config) -> tuple[BuildReport, Promotion]:
    report = build_corpus(config)
    return report, promote(config, manifest_of(report), report.created)


def changed_gates(config: Config, **gates: Any) -> Config:
    return Config.model_validate({**config.model_dump(), "gates": gates})


def promote_version_of(config: Config, report: BuildReport) -> BuildReport:
    return promote_version(plan(config), report, manifest_of(report))


def build_corpus_of(config: Config) -> BuildReport:
    """As `build_corpus`, with the prompts screened."""
    planned, generated = generate_missing(plan_build(config, prompts_of(config)), lambda _: None)
    return report_build(planned, generated, *assemble_version(planned, lambda *_: None))


def test_without_gates_every_version_becomes_stable(config: Config) -> None:
    for samples in (2, 3):
        report, promotion = built(with_samples(config, samples))
        assert promotion == Promotion(True, samples - 1, [], None)
        assert open_corpus("replayed@stable", config.root).reference == report.corpus


def test_a_version_that_fails_is_made_and_not_promoted(config: Config) -> None:
    built(config)
    gated = changed_gates(with_samples(config, 3), min_rows=1000)
    report, promotion = built(gated)
    assert (report.corpus, report.created) == ("replayed@v2", True)
    assert promotion == Promotion(False, 1, ["min_rows: 60 rows, at least 1,000 are asked for"], None)
    again, still = built(gated)
    assert not again.created and still == promotion
    loosened, promotion = built(changed_gates(gated, min_rows=60))
    assert not loosened.created  # gates are no part of a version
    assert promotion == Promotion(True, 2, [], None)


def test_tightened_gates_look_at_what_is_stable_again(config: Config) -> None:
    built(config)
    _, promotion = built(changed_gates(config, min_rows=1000))
    assert (promotion.promoted, promotion.stable) == (False, 1) and "min_rows" in promotion.failed_gates[0]
    assert promotion.note is not None and "corpus rollback" in promotion.note
    tag_version(config.root, f"{config.name}@v1", "stable")  # a person has the last word
    assert built(changed_gates(config, min_rows=1000))[1].promoted


def test_what_is_stable_is_compared_with_what_was_before(config: Config) -> None:
    built(config)
    gated = changed_gates(with_samples(config, 3), max_length_drift=1e-9)
    assert not built(gated)[1].promoted
    built(changed_gates(gated, max_length_drift=10.0))
    assert "v1" in built(gated)[1].failed_gates[0]


def test_a_version_that_somebody_deleted_is_compared_with_no_more(config: Config) -> None:
    for samples in (2, 3, 4):
        built(with_samples(config, samples))
    drifting = changed_gates(with_samples(config, 4), max_length_drift=10.0)
    shutil.rmtree(find_version(config.root, "replayed@v2"))
    assert built(drifting)[1].promoted  # compared with v1
    shutil.rmtree(find_version(config.root, "replayed@v1"))
    assert built(drifting)[1].promoted
    shutil.rmtree(find_version(config.root, "replayed@v3"))
    report, promotion = built(changed_gates(with_samples(config, 5), max_length_drift=1e-9))
    assert report.corpus == "replayed@v4" and promotion.promoted  # v3, which stable named, is gone and not made again


def test_a_build_says_which_gate_failed_and_what_to_do(config: Config) -> None:
    gated = changed_gates(config, min_rows=41, max_dropped={"truncated": 0.0})
    report = build_corpus(gated)
    with pytest.raises(
        GateError, match=r"replayed@v1 is not promoted: min_rows: 40 rows, .* tag replayed@v1 stable`"
    ) as e:
        promote_version_of(gated, report)
    text = build_summary(e.value.report).splitlines()
    assert "  gate        FAILED min_rows: 40 rows, at least 41 are asked for" in text
    assert "  stable      there is none: this version is not promoted" in text
    assert e.value.exit_code == 4 and not is_promoted(e.value.report)


def test_a_person_who_rolled_back_is_not_overruled(config: Config) -> None:
    built(config)
    two = with_samples(config, 3)
    built(two)
    roll_back(config.root, "replayed")
    report, promotion = built(two)
    assert (report.corpus, promotion.promoted, promotion.stable, promotion.failed_gates) == (
        "replayed@v2",
        False,
        1,
        [],
    )
    assert promotion.note is not None and "was moved to v1 by hand" in promotion.note
    shown = build_summary(promote_version_of(two, report)).splitlines()
    assert f"  note        {promotion.note}" in shown
    assert built(with_samples(config, 4))[1] == Promotion(True, 3, [], None)


def test_a_person_may_promote_what_failed(config: Config) -> None:
    gated = changed_gates(config, min_rows=1000)
    assert not built(gated)[1].promoted
    tag_version(config.root, "replayed@v1", "stable")
    assert built(gated)[1] == Promotion(True, 1, [], None)


def test_drift_is_measured_against_what_stable_names(config: Config) -> None:
    built(config)
    cut = changed(config, teacher={"sampling": {**config.teacher.sampling.model_dump(), "max_tokens": 5}},
                  filters={"truncated": False, "missing_answer": False})  # fmt: skip
    report, promotion = built(changed_gates(cut, max_length_drift=0.3))
    (line,) = promotion.failed_gates
    assert line.startswith("max_length_drift: completions of 5.0 tokens, ") and " in v1: " in line
    assert promotion.stable == 1 and report.corpus == "replayed@v2"


def test_what_a_loose_decontamination_lets_in_fails_the_gate(config: Config, tmp_path: Path) -> None:
    held = "a train leaves the station at noon and reaches the next town in two hours"
    asked = [f"{held}: {' '.join(f'word{n}' for n in range(60))}", "How much is 1 + 1?"]
    prompts, bench = tmp_path / "own.jsonl", tmp_path / "bench.jsonl"
    prompts.write_text("".join(json.dumps({"question": text, "answer": "1"}) + "\n" for text in asked))
    bench.write_text(json.dumps({"q": held}) + "\n")
    config = make_config(Path(config.root), Path(config.teacher.model), prompts)
    section = {"benchmarks": [{"path": str(bench), "text": ["q"]}], "max_overlap": 0.5}
    gated = changed_gates(
        Config.model_validate(config.model_dump() | {"decontaminate": section}), zero_contamination=True
    )
    report = build_corpus_of(gated)
    assert report.dropped == {} and report.rows == 4
    (line,) = promote(gated, manifest_of(report), True).failed_gates
    assert line.startswith("zero_contamination: 2 rows hold text of a benchmark, 0 are allowed: trace ")
    strict = Config.model_validate(gated.model_dump() | {"decontaminate": section | {"max_overlap": 0.0}})
    report = build_corpus_of(strict)
    assert report.dropped == {"contaminated": 1}
    assert promote(strict, manifest_of(report), True).promoted


def test_a_row_whose_answer_is_a_benchmarks_text(config: Config, tmp_path: Path) -> None:
    report = build_corpus(config)
    said = open_corpus(report.corpus, config.root).traces("train")[0]
    bench = tmp_path / "bench.jsonl"
    bench.write_text(json.dumps({"q": said["messages"][-1]["content"]}) + "\n")
    section = {"benchmarks": [{"path": str(bench), "text": ["q"], "name": "held"}]}
    gated = changed_gates(
        Config.model_validate(config.model_dump() | {"decontaminate": section}), zero_contamination=True
    )
    (line,) = built(gated)[1].failed_gates
    assert line.startswith(
        f"zero_contamination: 1 rows hold text of a benchmark, 0 are allowed: trace {said['trace_id']}"
    )
    assert line.endswith("of benchmark held")
    bench.write_text(json.dumps({"q": "Something that nobody asks and nobody says"}) + "\n")
    assert built(gated)[1].promoted


def test_an_older_version_is_not_lost_where_no_tag_can_be_written(config: Config) -> None:
    build_corpus(config)
    (find_version(config.root, "replayed").parent / ".tags.lock").mkdir()  # as on a read-only disk: no lock can be made
    report, promotion = built(config)
    assert not report.created and promotion.promoted and promotion.stable is None
    assert promotion.note is not None and promotion.note.startswith("stable stays: cannot write")
    assert "  note        stable stays: cannot write" in build_summary(promote_version_of(config, report))
    with pytest.raises(CorpusError, match="cannot write"):
        built(with_samples(config, 3))


def test_an_up_to_date_build_needs_no_lock(config: Config) -> None:
    built(config)
    folder = find_version(config.root, "replayed").parent
    (folder / ".tags.lock").unlink(missing_ok=True)
    (folder / ".tags.lock").mkdir()
    assert built(config)[1] == Promotion(True, 1, [], None)


def test_prompts_are_compared_with_the_version_that_a_tag_names(
    config: Config, tmp_path: Path, tiny_model: Path
) -> None:
    built(config)
    against = {"deduplicate": {"against": ["replayed@stable"], "prompt_similarity": 1.0}}
    other = make_config(
        tmp_path / "root", tiny_model, write_prompts(tmp_path / "more.jsonl", 30), name="other", **against
    )
    assert pinned(other).deduplicate.against == ["replayed@v1"]
    report = build_corpus_of(other)
    assert report.dropped == {"seen_in_other_corpus": 20}
    assert manifest_of(report).config["deduplicate"]["against"] == ["replayed@v1"]
    assert list_tags(config.root, "replayed") == {"stable": 1}
