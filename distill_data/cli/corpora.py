"""Commands that look at corpus versions; every heavy import sits inside its command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from distill_data.cli.options import (
    NO_KEEP,
    AsJson,
    CorpusName,
    Destination,
    DryRun,
    DryRunGc,
    ExportFolder,
    ExportFormat,
    Keep,
    Private,
    Reference,
    RemoveTag,
    ReportFile,
    Root,
    Rows,
    Split,
    TagName,
    TraceId,
    Unused,
    Yes,
)
from distill_data.cli.output import prepare, show

corpus_app = typer.Typer(help="Look at corpus versions.", no_args_is_help=True)


def report(reference: Reference, out: ReportFile = None, root: Root = "./data", as_json: AsJson = False) -> None:
    """Write a version's report: one HTML page with its funnel, figures and example traces."""
    prepare(verbose=False)
    from distill_data.corpus.read import open_corpus
    from distill_data.page import write_page
    from distill_data.page.texts import teacher_decoder
    from distill_data.report.files import page_summary

    corpus = open_corpus(reference, root)
    path = out or Path(root) / "reports" / f"{corpus.name}-v{corpus.version}.html"
    decode = teacher_decoder(corpus)
    write_page(corpus, path, decode)
    missing = decode if isinstance(decode, str) else None
    show({"corpus": corpus.reference, "path": path, "without_token_texts": missing}, as_json, page_summary)


def publish(
    reference: Reference,
    to: Destination = None,
    private: Private = False,
    dry_run: DryRun = False,
    root: Root = "./data",
    as_json: AsJson = False,
) -> None:
    """Publish a version to a hub or any URL that fsspec writes to, unless it is there."""
    prepare(verbose=False)
    from distill_data.progress import shown_on_stderr
    from distill_data.publish import destination_of, publish_version
    from distill_data.report.files import publish_summary

    destination = destination_of(reference, root) if to is None else to
    with shown_on_stderr() as screen:
        report = publish_version(root, reference, destination, private=private, dry_run=dry_run, say=screen.note)
    show(report, as_json, publish_summary)


@corpus_app.command("list")
def corpus_list(root: Root = "./data", as_json: AsJson = False) -> None:
    """List corpora, their versions and tags."""
    from distill_data.corpus.versions import list_corpora, list_tags, list_versions
    from distill_data.report.version import CorpusListing, corpora_summary

    corpora = {name: CorpusListing(list_versions(root, name), list_tags(root, name)) for name in list_corpora(root)}
    show(corpora, as_json, corpora_summary)


@corpus_app.command("show")
def corpus_show(reference: Reference, root: Root = "./data", as_json: AsJson = False) -> None:
    """Show a version's counts, statistics and one abridged row."""
    from distill_data.corpus.read import open_corpus
    from distill_data.report.version import corpus_summary

    corpus = open_corpus(reference, root)
    show(corpus.manifest, as_json, lambda _: corpus_summary(corpus))


@corpus_app.command("verify")
def corpus_verify(reference: Reference, root: Root = "./data", as_json: AsJson = False) -> None:
    """Check a version: checksums, schemas, ids, alignment, splits, and on a sample that ids and words agree."""
    from distill_data.corpus.check import verify_corpus
    from distill_data.corpus.read import open_corpus
    from distill_data.corpus.texts import text_problems
    from distill_data.corpus.tokenizer import version_tokenizer
    from distill_data.errors import ModelError
    from distill_data.report.version import verification_summary

    corpus = open_corpus(reference, root)
    problems, left_out = verify_corpus(corpus), None
    if not problems:
        try:
            problems = text_problems(corpus, version_tokenizer(corpus, download=False))
        except ModelError as error:
            left_out = str(error)
    found = {"corpus": corpus.reference, "ok": not problems, "problems": problems, "texts_left_out": left_out}
    show(found, as_json, verification_summary)
    if problems:
        raise typer.Exit(1)


@corpus_app.command("diff")
def corpus_diff(
    before: Reference,
    after: Reference,
    rows: Rows = False,
    root: Root = "./data",
    as_json: AsJson = False,
) -> None:
    """Say what changed from one version to another, and why."""
    from distill_data.corpus.diff import changed_rows, diff_versions
    from distill_data.corpus.read import open_corpus
    from distill_data.report.history import diff_summary

    changed: list[dict[str, Any]] | None = [] if rows else None
    see = (lambda piece: None) if changed is None else (lambda piece: changed.extend(changed_rows(piece)))
    found = diff_versions(open_corpus(before, root), open_corpus(after, root), see)
    show({"diff": found, "rows": changed}, as_json, lambda _: diff_summary(found, changed))


@corpus_app.command("lineage")
def corpus_lineage(reference: Reference, trace: TraceId, root: Root = "./data", as_json: AsJson = False) -> None:
    """Walk from one row back to its file, its part, its prompt's source, its teacher and its verdict."""
    from distill_data.corpus.lineage import lineage
    from distill_data.corpus.read import open_corpus
    from distill_data.report.history import lineage_summary

    show(lineage(open_corpus(reference, root), trace, root), as_json, lineage_summary)


@corpus_app.command("gc")
def corpus_gc(
    keep: Keep = NO_KEEP,
    unused: Unused = False,
    yes: Yes = False,
    dry_run: DryRunGc = False,
    root: Root = "./data",
    as_json: AsJson = False,
) -> None:
    """Free trace parts that no kept version needs, after showing them; versions are never touched."""
    from distill_data.corpus.gc import free_parts, plan_gc
    from distill_data.report.history import gc_summary

    plan = plan_gc(root, keep, unused=unused)
    if plan.free and not dry_run and (yes or (not as_json and _confirmed(gc_summary(plan)))):
        plan = free_parts(plan, root, keep, unused=unused)
    show(plan, as_json, gc_summary)


def _confirmed(what: str) -> bool:
    typer.echo(what, err=True)
    return typer.confirm("delete these parts?", err=True)


@corpus_app.command("export")
def corpus_export(
    reference: Reference,
    format_: ExportFormat,
    out: ExportFolder = None,
    split: Split = None,
    root: Root = "./data",
    as_json: AsJson = False,
) -> None:
    """Write a version as files that another trainer reads, with what its config needs."""
    from distill_data.corpus.read import open_corpus
    from distill_data.export import export_corpus, export_folder
    from distill_data.report.files import export_summary

    corpus = open_corpus(reference, root)
    report = export_corpus(corpus, format_, out or export_folder(root, corpus, format_), split)
    show(report, as_json, export_summary)


@corpus_app.command("tag")
def corpus_tag(
    reference: Reference, tag: TagName, remove: RemoveTag = False, root: Root = "./data", as_json: AsJson = False
) -> None:
    """Let a tag name a version, or remove it; no build moves it back to a version that is there now."""
    from distill_data.corpus.tagging import remove_tag, tag_version
    from distill_data.report.version import tag_summary

    show((remove_tag if remove else tag_version)(root, reference, tag), as_json, tag_summary)


@corpus_app.command("rollback")
def corpus_rollback(name: CorpusName, tag: TagName = "stable", root: Root = "./data", as_json: AsJson = False) -> None:
    """Let a tag name the version that it named before."""
    from distill_data.corpus.tagging import roll_back
    from distill_data.report.version import tag_summary

    show(roll_back(root, name, tag), as_json, tag_summary)
