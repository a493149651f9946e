"""The benchmarks that need no engine run, small, and say what they found; nothing here is timed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from distill_data.soft_labels import pad_support, select_support
from distill_data.student.losses import tail_bucket_kl
from distill_data.teacher_config import SoftLabelSelection
from tests.benchmarks import (
    ceiling,
    classification,
    deduplication,
    distillkit,
    distributions,
    filtering,
    first_token,
    formats,
    gradients,
    kills,
    losses,
    memory,
    overhead,
    reading,
    recipe,
    report,
    republish,
    scaling,
    soft_labels,
    tried_chunks,
    tried_layouts,
)
from tests.benchmarks.dispatch_simulation import Simulation
from tests.benchmarks.stopwatch import Stopwatch
from tests.benchmarks.workload import long_tailed_lengths
from tests.pool.replay_job import InlinePool


def published(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def test_ceiling(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--requests", "6", "--rounds", "1", "--without-vllm"]
    ceiling.main([*size, "--model", str(tiny_model), "--out", str(tmp_path)])
    found = published(tmp_path, "ceiling")
    assert found["benchmark"] == "ceiling"
    assert all(found["machine"][key] for key in ("cpu", "cores", "memory_gib", "python", "packages"))
    for width in (20, 64):
        figures = found[f"k{width}"]
        assert figures["tokens"] == long_tailed_lengths(6).sum()
        assert 1 < figures["mean_support"] <= width
        assert figures["tokens_per_second"] > 0
        spent = figures["microseconds_per_token"]
        assert spent.keys() == {*ceiling.STEPS, "all"}
        assert all(value > 0 for value in spent.values())
    printed = capsys.readouterr().out
    assert "| tokens/s on one core" in printed and report.describe(found["machine"]) in printed


def test_ceiling_replays_what_it_was_given() -> None:
    lengths = np.array([5, 1, 3] * 40)
    batch = ceiling.make_batch(lengths, 4, 50, seed=1)
    with Stopwatch() as watch:
        completions = ceiling.convert(batch, 4, watch)
    assert [len(completion.token_ids) for completion in completions] == lengths.tolist()
    assert [completion.token_ids.tolist() for completion in completions] == batch.token_ids
    assert max(np.diff(batch.step_ends, prepend=0)) == ceiling.RUNNING
    for completion in completions:
        assert (np.diff(completion.top_logprobs) <= 0).all()
        assert (np.exp(completion.top_logprobs).sum(axis=1) <= 1.0).all()


@pytest.mark.long
def test_classification(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pos", "neg"):
        lines = "\n".join(f"a review of a film that is {name}, number {number}" for number in range(30))
        (tmp_path / f"{name}.txt").write_text(lines, encoding="utf-8")
    monkeypatch.setattr("distill_data.session.TeacherPool", InlinePool)
    size = ["--texts", "40", "--sizes", "12", "--seeds", "1", "--steps", "2", "--backend", "replay"]
    where = ["--reviews", str(tmp_path), "--root", str(tmp_path / "root"), "--out", str(tmp_path / "out")]
    classification.main([*size, *where, "--model", str(tiny_model)])
    found = published(tmp_path / "out", "classification")
    assert found["students"].keys() == classification.ARMS.keys()
    for sizes in found["students"].values():
        assert sizes.keys() == {"12"}
        for measures in sizes.values():
            assert measures.keys() == classification.MEASURES.keys()
            assert all(len(values) == 1 for values in measures.values())
    soft, true = (found["students"][arm]["12"]["log_loss"] for arm in ("soft labels, as they are", "true labels"))
    assert soft != true
    assert found["teacher"]["plain"] != found["teacher"]["calibrated"]


def write_completions(cache: Path, model: Path, tokens: int) -> None:
    """Random ones, where the benchmark of soft labels looks for those that it made before."""
    ids = np.random.default_rng(0).integers(3, 300, (2, 12, tokens // 12)).tolist()
    columns = {"prompt_token_ids": pa.array(ids[0], pa.list_(pa.int32()))}
    columns["completion_token_ids"] = pa.array(ids[1], pa.list_(pa.int32()))
    cache.mkdir()
    pq.write_table(pa.table(columns), cache / f"completions-{model.stem}-{tokens}.parquet")


def test_soft_labels(tmp_path: Path, tiny_model: Path) -> None:
    write_completions(tmp_path / "cache", tiny_model, 240)
    where = ["--cache", str(tmp_path / "cache"), "--model", str(tiny_model), "--out", str(tmp_path)]
    soft_labels.main([*where, "--tokens", "240", "--batches", "16,64"])
    found = published(tmp_path, "soft_labels")["formats"]
    assert found.keys() == {choice.name for choice in soft_labels.FORMATS}
    for name, of in found.items():
        assert of["weight_gradient_error"].keys() == {"16", "64"}
        for kind in ("plain", "sharp"):
            spent = of[kind]["bytes_per_token"]
            assert spent["all"] > sum(size for name, size in spent.items() if name != "all") > 0
            assert "draws" in name or 0 < of[kind]["gradient_error"] < 1
    zero, bucket = (found[f"DistillKit budget, {loss}"]["plain"] for loss in ("zero", "symmetric_uniform"))
    assert bucket["gradient_error"] < zero["gradient_error"]
    for one, other in [("compact", "balanced"), ("balanced", "faithful")]:
        assert found[one]["plain"]["bytes_per_token"]["all"] < found[other]["plain"]["bytes_per_token"]["all"]
        assert found[one]["plain"]["gradient_error"] > found[other]["plain"]["gradient_error"]


def test_tried_layouts(tmp_path: Path, tiny_model: Path) -> None:
    write_completions(tmp_path / "cache", tiny_model, 240)
    where = ["--cache", str(tmp_path / "cache"), "--model", str(tiny_model), "--out", str(tmp_path)]
    tried_layouts.main([*where, "--tokens", "240", "--times", "2"])
    found = published(tmp_path, "tried_layouts")["layouts"]
    assert found.keys() == {layout.name for layout in tried_layouts.LAYOUTS}
    for of in found.values():
        assert of["bytes_per_token"] > 0 and 0 <= of.get("new_front", 0) <= 1


def test_a_version_with_a_trace_more_is_that(tmp_path: Path, tiny_model: Path) -> None:
    write_completions(tmp_path / "cache", tiny_model, 240)
    everything = distributions.measured(tmp_path / "cache", 240, str(tiny_model))
    labels = formats.likeliest(everything, "plain", SoftLabelSelection(preset="balanced")).labels
    whole = formats.flat_file(everything.traces, labels).drop_columns("trace_id")
    fewer = formats.flat_file(*tried_layouts.without_last(everything.traces, labels)).drop_columns("trace_id")
    assert fewer.equals(whole.slice(0, 11))
    moved = formats.flat_file(*tried_layouts.later(everything.traces, labels, 4)).drop_columns("trace_id")
    assert moved.equals(whole.take([0, 1, 2, 3, 11, *range(4, 11)]))


def test_gradient_errors_are_those_of_the_loss() -> None:
    """Closed forms against autograd of the loss that students are trained with."""
    random = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(2, 40, 400, generator=random)
    heads = torch.eye(400).expand(2, -1, -1)  # states are logits
    log_p, log_q = torch.log_softmax(logits, 2)
    seen = distributions._summarise(log_p, log_q, torch.zeros(40, dtype=torch.int64))
    labels = select_support(seen.top_ids, seen.log_p, seen.sampled, SoftLabelSelection(min_prob=0.005, max_support=32))
    student = logits[1].double().requires_grad_()
    ids, values = (torch.from_numpy(one) for one in pad_support(labels))
    losses_of = tail_bucket_kl(student, ids.long(), values.double())
    losses_of.sum().backward()
    assert student.grad is not None
    true = (log_q.double().exp() - log_p.double().exp()).numpy()
    off = student.grad.numpy() - true
    everything = distributions.Measured(pa.table({}), seen, seen, logits.numpy(), heads.numpy())
    kept = formats.likeliest(everything, "plain", SoftLabelSelection(min_prob=0.005, max_support=32))
    assert kept.ranked is not None and (kept.labels.support_ids == labels.support_ids).all()
    found = gradients.logit_errors(seen, kept.ranked)
    assert found["gradient_error"] == pytest.approx(np.linalg.norm(off) / np.linalg.norm(true), rel=1e-4)
    true_kl = (log_p.exp() * (log_p - log_q)).sum(1).mean().item()
    assert found["kl_bias"] == pytest.approx(losses_of.mean().item() - true_kl, abs=1e-5)
    states = logits[1].double().numpy()
    expected = np.linalg.norm(off.T @ states) / np.linalg.norm(true.T @ states)
    assert gradients.weight_errors(everything, [kept], [40])[0]["40"] == pytest.approx(expected, rel=1e-3)


def test_distillkit_reads_back_what_it_stores() -> None:
    log_p = np.sort(torch.log_softmax(3 * torch.randn(20, 400), 1).numpy())[:, ::-1].copy()
    ids = np.argsort(np.random.default_rng(0).random((20, 400)))[:, :].astype(np.int32)
    stored, values = distillkit.captured(distillkit.BUDGET, log_p, ids, 400)
    assert stored.logprobs.shape == (20, 2 + 3 * 4) and stored.ids.shape == (20, -(-50 * 9 // 8))
    assert np.abs(values[:, 0] / log_p[:, 0] - 1).max() <= 2**-8
    ranks = np.arange(49.0)
    terms = np.stack([np.ones(49), ranks, np.sqrt(ranks)], 1)
    fit = terms @ np.linalg.lstsq(terms, log_p[:, 1:50].T.astype(np.float64), rcond=None)[0]
    np.testing.assert_allclose(values[:, 1:], fit.T, atol=1e-3)  # three terms are well conditioned
    bits = np.unpackbits(stored.ids, axis=1)[:, : 50 * 9].reshape(20, 50, 9)
    assert (bits @ (1 << np.arange(8, -1, -1)) == ids[:, :50]).all()


@pytest.mark.long
def test_memory(tmp_path: Path) -> None:
    memory.main(["--sizes", "600,1200", "--out", str(tmp_path)])
    found = published(tmp_path, "memory")
    assert [size["prompts"] for size in found["sizes"]] == [600, 1200]
    for size in found["sizes"]:
        assert list(size["build"]) == [
            "load prompts", "plan", "look for the version", "start the worker", "generate", "assemble"
        ]  # fmt: skip
        assert list(size["again"]) == ["load prompts", "plan", "look for the version"]
        assert size["flow_peak_mib"] > 50 and size["worker_peak_mib"] > 50
        assert size["microseconds_per_row_early"] > 0 and size["microseconds_per_row_late"] > 0


def test_reading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading.main(["--traces", "20", "--rounds", "1", "--out", str(tmp_path)])
    found = published(tmp_path, "reading")
    assert found["fixed"]["mean_support"] == 32 and 1 < found["variable"]["mean_support"] < 64
    for kind in reading.KINDS:
        assert found[kind]["tokens"] == long_tailed_lengths(20).sum()
        for way in reading.WAYS:
            spent = found[kind][way]["microseconds_per_token"]
            steps = {
                "first": ("hash", "lengths", "decode"), "stream": ("decode",), "mapped": ("hash", "decode", "write"),
                "again": (),
            }[way]  # fmt: skip
            assert {step for step, cost in spent.items() if cost > 0} == {*steps, "check", "collate", "rest"}
            assert found[kind][way]["tokens_per_second"] == pytest.approx(1e6 / sum(spent.values()))
    assert found["headline"] in capsys.readouterr().out


def test_filtering(tmp_path: Path) -> None:
    filtering.main(["--sizes", "40,80", "--rounds", "1", "--out", str(tmp_path)])
    sizes = published(tmp_path, "filtering")["sizes"]
    assert [size["rows"] for size in sizes] == [40, 80]
    for size in sizes:
        assert min(size["rows_per_second"].values()) > 0 and 0 < sum(size["dropped"].values()) <= size["rows"]


@pytest.mark.long
def test_deduplication(tmp_path: Path) -> None:
    deduplication.main(["--sizes", "60", "--out", str(tmp_path)])
    cases = published(tmp_path, "deduplication")["cases"]
    assert {"prompts", "samples", "decontamination"} <= {*cases}


@pytest.fixture
def own_cores() -> Iterator[None]:
    """The process's cores as they were, for what takes one of them."""
    cores, threads = os.sched_getaffinity(0), pa.cpu_count()
    yield
    os.sched_setaffinity(0, cores)
    pa.set_cpu_count(threads)


@pytest.mark.long
def test_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cores: None) -> None:
    monkeypatch.setattr(recipe, "MOST_LABELLED", 600)
    sizes = [recipe.measure_size(rows) for rows in (40, 600, 640)]
    recipe.publish(recipe.result_of(sizes), tmp_path)
    assert published(tmp_path, "recipe")["sizes"] == sizes
    assert [(size["rows"], size["labelled"]) for size in sizes] == [(40, True), (600, True), (640, False)]
    for size in sizes:
        assert size["again_rows_per_second"] > 0 and size["deciding_peak_mib"] > 0
    for size in sizes[1:]:  # so few rows may be judged in less than the start, which is taken off, varies by
        spent = {stage for stage, microseconds in size["us_per_row"].items() if microseconds > 0} | {"judge"}
        assert spent == {*recipe.STAGES} - (set() if size["labelled"] else {recipe.LABELS})
    for size in sizes[:2]:
        assert size["kept"] + sum(size["dropped"].values()) == size["rows"] and size["tokens_per_second"] > 0
    reasons = {"failed_verifier", "near_duplicate_sample", "repetition"}
    assert reasons <= {*sizes[1]["dropped"]} and sizes[1]["kept"] > 300


def test_republish(tmp_path: Path) -> None:
    republish.main(["--prompts", "100", "--out", str(tmp_path)])
    found = published(tmp_path, "republish")
    assert [version["rows"] for version in found["versions"]] == [404, 440, 396, 396, 396]
    assert all(version["new_bytes"] > 0.2 * version["changed_bytes"] for version in found["versions"])
    assert all(version["new_bytes"] < 0.9 * version["bytes"] for version in found["versions"])  # the rest was there


def test_tried_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tried_chunks, "TRIED", [tried_chunks.PYARROWS])
    tried_chunks.main(["--tokens", "200000", "--out", str(tmp_path)])
    found = {(one["pages_by"], one["tokens"]): one for one in published(tmp_path, "tried_chunks")["found"]}
    assert len(found) == 4 and all(0 < one["new_share"] < 1 and one["ratio"] > 0 for one in found.values())
    for tokens in tried_chunks.LENGTHS:
        usual, ours = (found[way.name, tokens] for way in (tried_chunks.PYARROWS, tried_chunks.AS_PUBLISHED))
        assert ours["new_share"] < usual["new_share"] and ours["bytes"] < 1.05 * usual["bytes"]


def test_kills_figures(tmp_path: Path) -> None:
    """The killing itself is tested in tests/crash."""
    done = [kills.Kill("flow", 3, 1), kills.Kill("worker", 9, 12), kills.Kill("worker", 20, 4)]
    report.publish(kills.result_of(done, seconds=6.0, seed=5), tmp_path)
    found = published(tmp_path, "kills")
    assert (found["kills"], found["seed"], found["seconds_per_kill"]) == (3, 5, 2.0)
    assert found["made_again"]["all"] == {"kills": 3, "total": 17, "most": 12}


def test_first_token_figures(tmp_path: Path) -> None:
    marks = ["command", "imported", "early start", "prefect imported", "in the flow", "prompts", "plan", "check"]
    marks += ["spawn", "worker python", "worker imported", "worker vllm", "worker engine", "worker ready"]
    early = {name: float(number) for number, name in enumerate([*marks, "worker request", "first token"])}
    late = {name: at for name, at in early.items() if name != "early start"}
    figures = first_token.figures_of({"early": [early], "late": [late]})
    report.publish(first_token.result_of(figures, rounds=1), tmp_path)
    found = published(tmp_path, "first_token")
    assert found["early"]["first_token_seconds"] == early["first token"]
    assert found["early"]["stretches"]["worker: import of vLLM"] == {"at": early["worker imported"], "seconds": 1.0}
    assert found["early"]["stretches"].keys() - found["late"]["stretches"].keys() == {first_token.FLOW[1][2]}


@pytest.mark.long
def test_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ("half of it prompt", "scaled logits")  # every case takes two processes
    monkeypatch.setattr(losses, "CASES", {name: losses.CASES[name] for name in chosen})
    shape = {"vocab_size": 500, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    size = ["--rounds", "2", "--length", "32", "--shape", json.dumps(shape | heads)]
    losses.main([*size, "--out", str(tmp_path)])
    found = published(tmp_path, "losses")
    assert found["cases"].keys() == losses.CASES.keys()
    for case in found["cases"].values():
        assert [len(case["all_seconds"][which]) for which in ("ours", "plain")] == [2, 2]
        assert min(case["seconds"].values()) > 0 and min(case["peak_mib"].values()) > 0
        assert case["time_ratio"] == case["seconds"]["ours"] / case["seconds"]["plain"]


def test_scaling_figures(tmp_path: Path) -> None:
    seconds = {"local 1": [40.0, 42.0], "local 2": [20.0, 21.0], "Ray 1": [41.0, 42.0], "Ray 2": [25.0, 26.25]}
    measured = {"tokens": 80_000, "seconds": seconds, "start_seconds": seconds}
    simulated = scaling.simulate(shards=8, workers=2)
    figures = scaling.figures_of(measured, simulated, prompts=600)
    report.publish(scaling.result_of(figures, rounds=2, shards=8, workers=2), tmp_path)
    found = published(tmp_path, "scaling")
    assert found["efficiency"] == {"local": 1.0, "Ray": pytest.approx(0.81)}
    assert found["of_the_engines"]["local 2"] == pytest.approx(20 / 20.5)
    assert found["simulated"].keys() == {*scaling.CASES, scaling.AS_PLANNED, scaling.LONGEST_FIRST}
    for case in found["simulated"].values():
        assert 0 < case["efficiency"] <= 1 and 0 <= case["tail_seconds"] < case["seconds"]
        assert (case["made_again"] > 0) == (case["deaths"] > 0)


def test_a_simulated_worker_makes_what_its_engine_can_until_the_tail() -> None:
    """64 equal traces at once: two waves a worker of 2 s each, the second half of a wave half a second later."""
    done = Simulation(np.full(256, 100), shard_size=32, workers=2, deaths_per_hour=0.0, seed=0).run()
    assert (done["seconds"], done["efficiency"]) == (pytest.approx(4.5), pytest.approx(4.0 / 4.5))


def test_overhead_figures(tmp_path: Path) -> None:
    rates = {"raw": [100.0, 200.0, 150.0], "build": [96.0, 180.0, 150.0], "drained": [48.0, 60.0, 75.0]}
    figures = overhead.figures_of(rates, long_tailed_lengths(5))
    report.publish(overhead.result_of(figures, rounds=3), tmp_path)
    found = published(tmp_path, "overhead")
    assert found["tokens_per_second"] == {"raw": 150.0, "build": 150.0, "drained": 60.0}
    assert (found["build_to_raw"], found["build_to_drained"]) == (0.96, 2.0)


def test_lengths_have_a_long_tail() -> None:
    lengths = long_tailed_lengths(2000)
    assert lengths.min() == 16 and lengths.max() == 512
    assert np.median(lengths) < lengths.mean()
