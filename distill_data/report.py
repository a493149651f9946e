"""What a finished command tells a person, as text. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill_data.build import BuildPause, BuildPlan, BuildReport
from distill_data.comparison.findings import FIGURES, Comparison
from distill_data.comparison.page import PAGE_NAME, saved, spread
from distill_data.corpus.manifest import Manifest
from distill_data.corpus.read import Corpus
from distill_data.corpus.tagging import Tagged
from distill_data.doctor import Check
from distill_data.estimate import Estimate, estimate_build
from distill_data.export import ExportReport
from distill_data.promotion import Promotion
from distill_data.publish.report import PublishReport
from distill_data.schedule_config import Schedule
from distill_data.student.job import StudentReport
from distill_data.student.result import ClassifierResult, EvaluationResult

SHOWN = 72  # characters of a text that `corpus show` prints


@dataclass(frozen=True)
class RunReport:
    """What `run` did, section by section; `student` and `published` are None where the config asks for none."""

    build: BuildReport | BuildPause
    student: StudentReport | None
    published: PublishReport | None = None


@dataclass(frozen=True)
class PlanReport:
    """What `plan` found."""

    config: dict[str, Any]
    teacher_id: str
    prompts: int
    dropped_prompts: dict[str, int]
    wanted_traces: int
    finished_traces: int
    estimate: Estimate


def describe_plan(plan: BuildPlan) -> PlanReport:
    """A build plan as figures."""
    dropped = plan.prompts.dropped["drop_reason"].value_counts().to_pylist()
    return PlanReport(
        config=plan.config.model_dump(mode="json"),
        teacher_id=plan.store.teacher_id,
        prompts=len(plan.prompts.table),
        dropped_prompts={count["values"]: count["counts"] for count in dropped},
        wanted_traces=plan.plan.wanted,
        finished_traces=len(plan.plan.finished),
        estimate=estimate_build(plan),
    )


def plan_summary(report: PlanReport) -> str:
    """The resolved config, what is missing, and what it will cost."""
    estimate = report.estimate
    basis = "from this teacher's finished traces" if estimate.measured else "a rule of thumb: nothing is finished yet"
    dropped = "".join(f", {count:,} dropped as {reason}" for reason, count in report.dropped_prompts.items())
    lines = [
        yaml.safe_dump(report.config, sort_keys=False, allow_unicode=True).rstrip(),
        "",
        _line("teacher", report.teacher_id),
        _line("prompts", f"{report.prompts:,}{dropped}"),
        _line(
            "traces",
            f"{report.wanted_traces:,} wanted, {report.finished_traces:,} finished, {estimate.traces:,} missing",
        ),
        _line("shards", f"{estimate.shards:,}"),
        _line("tokens", f"about {estimate.tokens:,}, at most {estimate.tokens_at_most:,} ({basis})"),
        _line("size", f"about {estimate.bytes / 1e6:,.1f} MB in the trace store"),
    ]
    if report.estimate.verdicts:
        lines.append(
            _line(
                "judging",
                f"{estimate.verdicts:,} verdicts of a model, about {estimate.judge_tokens:,} tokens, at most "
                f"{estimate.judge_tokens_at_most:,}",
            )
        )
    return "\n".join(lines)


def checks_summary(checks: list[Check]) -> str:
    """A line per check."""
    return "\n".join(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<10}{check.detail}" for check in checks)


@dataclass(frozen=True)
class CorpusListing:
    """What `corpus list` says of one corpus."""

    versions: list[int]
    tags: dict[str, int]  # the version that each names


def corpora_summary(corpora: dict[str, CorpusListing]) -> str:
    """A line per corpus; a version's tags stand behind it."""
    lines = []
    for name, listing in corpora.items():
        tags = {version: [tag for tag, at in listing.tags.items() if at == version] for version in listing.versions}
        shown = (f"v{version}" + (f" ({', '.join(names)})" if names else "") for version, names in tags.items())
        lines.append(f"{name}: {', '.join(shown)}")
    return "\n".join(lines) or "no corpora here: run `distill-data build CONFIG`, or give --root"


def tag_summary(moved: Tagged) -> str:
    """What a tag names now."""
    before = "" if moved.before is None else f"; before, it was v{moved.before}"
    now = "is removed" if moved.version is None else f"is v{moved.version}"
    return f"{moved.corpus}@{moved.tag} {now}{before}"


def corpus_summary(corpus: Corpus) -> str:
    """A version's provenance, counts and statistics, and its first row, abridged."""
    manifest = corpus.manifest
    lines = [f"{corpus.reference}  {manifest.created_at}  digest {manifest.digest[:16]}"]
    lines.append(_line("teacher", f"{manifest.config['teacher']['model']} ({manifest.teacher_id})"))
    lines += [_line(name, f"{count:,}") for name, count in manifest.counts.items()]
    lines += [_line("dropped", f"{reason} {count:,}") for reason, count in manifest.dropped.items()]
    lines += [_line("benchmark", f"{name}: {_touched(facts)}") for name, facts in manifest.prompts.benchmarks.items()]
    lines += [f"  {name:<28}{_figure(value)}" for name, value in manifest.statistics.items()]
    lines += [f"  {file.path}  {file.rows:,} rows, {file.bytes:,} bytes" for file in manifest.files]
    row = corpus.head("traces", "train", 1).to_pylist()[0]
    lines.append("first row of train")
    lines += [f"  {name:<20}{_abridged(value)}" for name, value in row.items()]
    return "\n".join(lines)


def _touched(facts: dict[str, Any]) -> str:
    """How much of a version's rows held text of a benchmark."""
    traces = f", {facts['traces']:,} traces" if "traces" in facts else ""
    return f"{facts['prompts']:,} prompts{traces} touched it"


def verification_summary(found: dict[str, Any]) -> str:
    """What `corpus verify` found."""
    if not found["ok"]:
        return "\n".join([f"{found['corpus']} is damaged:", *(f"  {problem}" for problem in found["problems"])])
    whole = f"{found['corpus']}: every file, checksum, schema and row alignment is as its manifest says"
    if found["texts_left_out"] is not None:
        return f"{whole}\n{_line('left out', 'whether ids and words agree: ' + found['texts_left_out'])}"
    return f"{whole}; ids and words agree in the rows that were looked at"


def page_summary(found: dict[str, Any]) -> str:
    """Where `report` wrote the page of a version, and what is not in it."""
    lines = [f"the report of {found['corpus']} is {found['path']}"]
    if found["without_token_texts"] is not None:
        lines.append(_line("left out", f"token probabilities: {found['without_token_texts']}"))
    return "\n".join(lines)


def export_summary(report: ExportReport) -> str:
    """What `corpus export` wrote, and what is not in it."""
    lines = [f"{report.corpus} is exported for {report.format}"]
    lines += [_line(split, f"{rows:,} traces") for split, rows in report.rows.items()]
    lines.append(_line("size", f"{report.bytes / 1e6:,.1f} MB"))
    lines += [_line("lost", what) for what in report.lost]
    lines.append(_line("folder", f"{report.path}: its README.md says what the tool's config needs"))
    return "\n".join(lines)


def funnel(manifest: Manifest) -> list[tuple[str, int]]:
    """What became of the prompts and traces of a version, stage by stage: name and rows."""
    counts = manifest.counts
    dropped = [(f"dropped: {reason}", count) for reason, count in manifest.dropped.items()]
    asked = [("prompts read", counts["prompts"] + manifest.prompts.dropped), ("prompts asked", counts["prompts"])]
    return [*asked, ("traces", counts["traces"]), *dropped, *((name, counts[name]) for name in ("kept", *_SPLITS))]


_SPLITS = ("train", "validation")


def publish_summary(report: PublishReport) -> str:
    """What was published where; of a dry run, the files and the card that would be."""
    size = f"{len(report.files):,} files, {report.bytes / 1e6:,.1f} MB"
    if report.delivery is None:
        files = [_line(f"{file.bytes:,}", file.path) for file in report.files]
        return "\n".join([f"{report.corpus} would go to {report.destination}: {size}", *files, "", report.card or ""])
    if report.already_there:
        return f"{report.corpus} is at {report.delivery.address} already; nothing was sent"
    lines = [f"{report.corpus} is published", _line("where", report.delivery.address), _line("files", size)]
    lines.append(_line("new", f"{report.bytes_sent / 1e6:,.1f} MB"))
    return "\n".join(lines + ([_line("revision", report.revision)] if report.revision else []))


def build_summary(report: BuildReport | BuildPause) -> str:
    """A build's figures, a line each."""
    if isinstance(report, BuildPause):
        return pause_summary(report)
    total = report.rows + sum(report.dropped.values())
    lines = [
        f"{report.corpus} is {'new' if report.created else 'up to date: nothing to do'}",
        _line("kept", f"{report.rows:,} of {total:,} rows: {report.train:,} train, {report.validation:,} validation"),
    ]
    dropped = sorted(report.dropped.items(), key=lambda item: -item[1])
    if dropped:
        lines.append(_line("dropped", ", ".join(f"{reason} {count:,}" for reason, count in dropped)))
    if report.pass_rate is not None:
        lines.append(_line("pass rate", f"{report.pass_rate:.1%} of judged traces"))
    if report.generated_traces:
        lines.append(
            _line(
                "generated",
                f"{report.generated_traces:,} traces, {report.generated_tokens:,} tokens in "
                f"{report.engine_seconds:.0f} s ({report.tokens_per_second:,.0f} tok/s; "
                f"the engine took {report.load_seconds:.0f} s to load)",
            )
        )
    if report.model_verdicts:
        lines.append(_line("judged", f"{report.model_verdicts:,} verdicts of a model, {report.judge_tokens:,} tokens"))
    if report.restarts:
        lines.append(
            _line(
                "restarts", f"{report.restarts:,} of teacher workers, which cost {report.regenerated_traces:,} traces"
            )
        )
    if report.dead_letters:
        lines.append(
            _line("dead", f"{report.dead_letters:,} traces of prompts that kill the engine: see dead_letters.jsonl")
        )
    lines.append(_line("reused", f"{report.reused_traces:,} traces from the store"))
    if report.soft_label_bytes_per_token is not None:
        lines.append(
            _line("size", f"{report.soft_label_bytes_per_token:.0f} bytes per completion token of soft labels")
        )
    lines += _promotion_lines(report.promotion)
    lines.append(_line("corpus", report.path))
    if (page := Path(report.path) / "report.html").is_file():  # versions made before there were reports have none
        lines.append(_line("report", str(page)))
    return "\n".join(lines)


def _promotion_lines(promotion: Promotion | None) -> list[str]:
    """Whether a version is promoted, or each gate that it failed."""
    if promotion is None:
        return []
    lines = [_line("gate", f"FAILED {line}") for line in promotion.failed_gates]
    if promotion.promoted:
        lines.append(_line("promoted", "this version is stable"))
    elif lines:
        stays = "there is none" if promotion.stable is None else f"stays v{promotion.stable}"
        lines.append(_line("stable", f"{stays}: this version is not promoted"))
    return lines if promotion.note is None else [*lines, _line("note", promotion.note)]


def pause_summary(report: BuildPause) -> str:
    """Why a build stopped before its end, and what is left."""
    lines = [
        f"{report.corpus} is paused: {report.paused}",
        _line("generated", f"{report.generated_traces:,} traces, {report.generated_tokens:,} tokens, all kept"),
    ]
    if report.model_verdicts:
        lines.append(_line("judged", f"{report.model_verdicts:,} verdicts, {report.judge_tokens:,} tokens, all kept"))
    if report.missing_verdicts:
        lines.append(_line("missing", f"{report.missing_verdicts:,} verdicts: the same command goes on"))
    else:
        lines.append(_line("missing", f"{report.missing_traces:,} traces: the same command goes on"))
    return "\n".join(lines)


def student_summary(report: StudentReport) -> str:
    """A student's figures, a line each."""
    state = f"trained {report.steps} steps in {report.seconds:.0f} s" if report.created else "up to date: nothing to do"
    lines = [
        f"student {report.name} is {state}",
        _line("size", f"{report.parameters:,} parameters"),
        _line("loss", f"{report.first_loss:.3f} -> {report.last_loss:.3f}"),
    ]
    if isinstance(report.before, ClassifierResult) and isinstance(report.after, ClassifierResult):
        lines += _classifier_lines(report.before, report.after)
    elif isinstance(report.before, EvaluationResult) and isinstance(report.after, EvaluationResult):
        before, after = report.before, report.after
        lines += [
            _line("held out", f"{after.traces:,} traces, {after.tokens:,} tokens, never trained on"),
            *_against_teacher(before, after),
            _line("entropy", _cross_entropies(before, after)),
        ]
    lines.append(_line("folder", report.path))
    return "\n".join(lines)


def _classifier_lines(before: ClassifierResult, after: ClassifierResult) -> list[str]:
    """How good a classifier is, against its teacher and where there are right labels."""
    lines = [
        _line("held out", f"{after.traces:,} texts, never trained on; {after.judged:,} with a right label"),
        _line("KL", f"{before.kl:.3f} -> {after.kl:.3f} nats to the teacher's distribution over labels"),
        _line("agreement", f"{before.agreement:.1%} -> {after.agreement:.1%} with the teacher's likeliest label"),
    ]
    for name, shown in (("accuracy", ".1%"), ("log_loss", ".3f"), ("calibration_error", ".3f")):
        first, last, teachers = (getattr(*of) for of in ((before, name), (after, name), (after, f"teacher_{name}")))
        if last is not None:
            said = f"{first:{shown}} -> {last:{shown}} (the teacher itself: {teachers:{shown}})"
            lines.append(_line({"calibration_error": "ECE"}.get(name, name.replace("_", " ")), said))
    return lines


def _against_teacher(before: EvaluationResult, after: EvaluationResult) -> list[str]:
    """How far from the teacher's distributions; nothing of a student that learns from text alone."""
    if before.uld is not None and after.uld is not None:
        told = f"{before.uld:.3f} -> {after.uld:.3f} between sorted probabilities, a mean over the student's tokens"
        return [_line("ULD", told)]
    if before.kl is None or after.kl is None:
        return []
    return [
        _line("KL", f"{before.kl:.3f} -> {after.kl:.3f} nats per token to the teacher's distribution"),
        _line("top-1", f"{before.top1_agreement:.1%} -> {after.top1_agreement:.1%} agreement with the teacher"),
    ]


def _cross_entropies(before: EvaluationResult, after: EvaluationResult) -> str:
    teachers = after.teacher_cross_entropy
    beside = " of its own" if teachers is None else f" (the teacher itself: {teachers:.3f})"
    return f"cross-entropy {before.cross_entropy:.3f} -> {after.cross_entropy:.3f} nats per token{beside}"


@dataclass(frozen=True)
class ServeReport:
    """What `serve` does from now on."""

    corpus: str
    cron: str
    timezone: str
    overlap: str
    next_run: str  # ISO 8601
    deployment: str  # id, in Prefect
    api: str  # of Prefect's server

    @classmethod
    def of(cls, corpus: str, schedule: Schedule, deployment: str, api: str) -> ServeReport:
        """The schedule of a corpus as figures."""
        due = schedule.next_run().isoformat()
        return cls(corpus, schedule.cron, schedule.timezone, schedule.overlap, due, deployment, api)


def serve_summary(report: ServeReport) -> str:
    """When what happens, and where to look."""
    page = f"{report.api.removesuffix('/api')}/deployments/deployment/{report.deployment}"
    return "\n".join(
        [
            f"{report.corpus} is built on schedule, next {report.next_run}",
            _line("cron", f"{report.cron} ({report.timezone})"),
            _line("overlap", "a run that is due while one is at work " + _OVERLAP[report.overlap]),
            _line("Prefect", page),
            _line("end", "Ctrl-C; what runs then is ended, and everything that it finished is kept"),
        ]
    )


_OVERLAP = {"skip": "is left out", "queue": "waits for it"}


def one_line(report: RunReport) -> str:
    """What a run came to, for a place with room for one line."""
    build = report.build
    if isinstance(build, BuildPause):
        return f"{build.corpus} is paused: {build.paused}"
    made = "is new" if build.created else "is up to date: nothing new"
    sent = report.published is not None and not report.published.already_there
    published = f"; published to {report.published.destination}" if report.published is not None and sent else ""
    student = "" if report.student is None else f"; student {report.student.name}"
    note = "" if build.promotion is None or build.promotion.note is None else f"; {build.promotion.note}"
    figures = f"{build.rows:,} rows, {build.generated_traces:,} traces generated"
    return f"{build.corpus} {made}; {figures}{published}{student}{note}"


def comparison_summary(found: Comparison | BuildPause) -> str:
    """What every way of learning ended at, and what the teacher's distributions saved."""
    if isinstance(found, BuildPause):
        return pause_summary(found)
    seen = ", ".join(f"{arm} {tokens:,}" for arm, tokens in found.tokens.items())
    lines = [
        f"{found.corpus}: a student of {found.parameters:,} parameters, trained for {found.seconds:,.0f} s in all",
        _line("seeds", f"{len(found.seeds)}"),
        _line("tokens", f"a training saw {seen}"),
    ]
    for name, arms in found.figures.items():
        lines.append(FIGURES[name])
        for arm in arms:
            lines.append(_line(arm.arm, f"{spread(arm.final)}  {saved(arm.saved)}".rstrip()))
    lines += [_line("page", f"{found.path}/{PAGE_NAME}"), _line("figures", f"{found.path}/comparison.json")]
    return "\n".join(lines)


def run_summary(report: RunReport) -> str:
    """The closing summary of `run`, with what to try next."""
    parts = [build_summary(report.build)]
    if isinstance(report.build, BuildPause):
        return parts[0]
    if report.published is not None:
        parts.append(publish_summary(report.published))
    if report.student is not None:
        parts.append(student_summary(report.student))
    corpus = f"{report.build.corpus}{_root_option(report.build)}"
    parts.append(
        "\n".join(
            [
                "next",
                f"  distill-data corpus show {corpus}",
                f"  distill-data corpus verify {corpus}",
                "  raise teacher.sampling.samples or prompts' size and run again: only what is new is generated",
            ]
        )
    )
    return "\n\n".join(parts)


def _root_option(report: BuildReport) -> str:
    """` --root ROOT` where the version, ROOT/corpora/NAME/vN, is not under ./data."""
    root = Path(report.path).parents[2]
    return "" if root == Path("data") else f" --root {shlex.quote(str(root))}"


def _figure(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _abridged(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _line(name: str, text: str) -> str:
    return f"  {name:<12}{text}"
