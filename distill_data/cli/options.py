"""Arguments and options of the commands, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML config.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a config value (YAML); repeatable.")
]
NO_OVERRIDES: list[str] = []
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; everything else on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Let vLLM, Prefect and transformers speak.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Pause after this many completion tokens; all is kept.")
]
MaxHours = Annotated[
    float | None, typer.Option("--max-hours", min=0, help="Pause after this many hours of generating; all is kept.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Generate traces again that failed or killed the engine before.")
]
CorpusOption = Annotated[
    str | None, typer.Option("--corpus", metavar="NAME@vN", help="Corpus version; the config's latest when left out.")
]
Reference = Annotated[
    str, typer.Argument(metavar="NAME@vN", help="Corpus version or NAME@TAG; NAME alone is the latest.")
]
Root = Annotated[str, typer.Option(envvar="DISTILL_DATA_ROOT", help="Folder that holds the corpora.")]
ExportFormat = Annotated[
    str,
    typer.Option(
        "--format", metavar="FORMAT", help="axolotl, distillkit, trl, trl-prompt-completion, ms-swift or jsonl."
    ),
]
ExportFolder = Annotated[
    Path | None, typer.Option("--out", metavar="FOLDER", help="Where to; ROOT/exports/NAME-vN-FORMAT when left out.")
]
ReportFile = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Where to; ROOT/reports/NAME-vN.html when left out.")
]
Split = Annotated[str | None, typer.Option(metavar="SPLIT", help="Only train or only validation.")]
CorpusName = Annotated[str, typer.Argument(metavar="NAME", help="Corpus.")]
TagName = Annotated[str, typer.Argument(metavar="TAG", help="A name that moves from version to version.")]
RemoveTag = Annotated[bool, typer.Option("--remove", help="Take the tag away.")]
Cron = Annotated[
    str | None, typer.Option(metavar="'0 3 * * *'", help="When, as five cron fields; instead of schedule.cron.")
]
Destination = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="hf://OWNER/NAME, s3://BUCKET/FOLDER, file:///FOLDER; what the version's config says when left out.",
    ),
]
Private = Annotated[bool, typer.Option("--private", help="A hub repository that is made is private.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show files, bytes and card; look at nothing there.")]
Rows = Annotated[bool, typer.Option("--rows", help="Row by row too: every trace that is not kept in both as it was.")]
TraceId = Annotated[
    str, typer.Argument(metavar="TRACE_ID", help="Of a row; the beginning or end of its id will do where it is unique.")
]
Keep = Annotated[
    list[str],
    typer.Option("--keep", metavar="NAME@vN", help="Keep what this version needs; repeatable; all when left out."),
]
NO_KEEP: list[str] = []
Unused = Annotated[bool, typer.Option("--unused", help="Free traces too that are in no version yet.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRunGc = Annotated[bool, typer.Option("--dry-run", help="Show what can go; delete nothing.")]
