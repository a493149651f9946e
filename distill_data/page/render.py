"""The page: gather what it shows, and put style, script and data into one HTML text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from distill_data.corpus.read import Corpus
from distill_data.corpus.write import public_model_name
from distill_data.errors import CorpusError, reason_of
from distill_data.filters import DROP_REASONS
from distill_data.page.charts import histogram_chart, number
from distill_data.page.curves import curve_chart
from distill_data.page.examples import ALTERNATIVES, KEPT_SHOWN, Decode
from distill_data.page.gather import Gathered, gather
from distill_data.page.payload import payload
from distill_data.page.scan import REJECTED_SHOWN
from distill_data.page.stages import stages
from distill_data.parquet import place
from distill_data.templates import templates

FILES_SHOWN = 200
NO_TOKENIZER = "no tokenizer was given"
_TEXT_SHOWN = 60_000  # characters of the config and the like
_FOLDER = Path(__file__).parent


def write_page(corpus: Corpus, path: Path, decode: Decode | str = NO_TOKENIZER) -> None:
    """Write a version's page to a file, whole or not at all; folders on the way are made.

    Args:
        corpus: the version.
        path: of the HTML file.
        decode: texts of token ids, one a token; or why there are none, which the page says in the place of the
            tokens' probabilities.

    Raises:
        CorpusError: a file of the version is damaged, or the page cannot be written.
    """
    page = render_page(corpus, decode)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        place(page.encode("utf-8"), path)
    except OSError as error:
        raise CorpusError(f"cannot write {path}: {reason_of(error)}: name another file") from error


def render_page(corpus: Corpus, decode: Decode | str = NO_TOKENIZER) -> str:
    """A version as one HTML page that loads nothing, equal for equal versions; see `write_page`."""
    return page_html(corpus, gather(corpus), decode)


def page_html(corpus: Corpus, found: Gathered, decode: Decode | str) -> str:
    """The page of what was gathered about a version."""
    manifest = corpus.manifest
    style, script = (_source(name) for name in ("page.css", "page.js"))
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            corpus=corpus,
            m=manifest,
            model=public_model_name(manifest.config["teacher"]["model"]),
            found=found,
            stages=stages(corpus, found.scan),
            explain=DROP_REASONS,
            curves=curve_chart(found.rates) if found.rates else None,
            histograms=[histogram_chart(figure) for figure in found.histograms],
            measures=[histogram_chart(figure) for figure in found.measures],
            rows=(rows := payload(found.kept, found.rejected, None if isinstance(decode, str) else decode)),
            data=Markup(rows.json),
            undecoded=decode if isinstance(decode, str) else None,
            shown={"kept": KEPT_SHOWN, "rejected": REJECTED_SHOWN, "alternatives": ALTERNATIVES},
            config=_yaml(manifest.config),
            origin={
                "teacher": _yaml(manifest.teacher),
                "tokenizer": _yaml(manifest.tokenizer),
                "prompt sources": _yaml(manifest.prompts.sources),
                **({"benchmarks": _yaml(manifest.prompts.benchmarks)} if manifest.prompts.benchmarks else {}),
            },
            files=manifest.files[:FILES_SHOWN],
            more_files=max(0, len(manifest.files) - FILES_SHOWN),
            total_bytes=sum(file.bytes for file in manifest.files),
            style=Markup(style),
            script=Markup(script),
            policy=_policy(style, script),
        )
    )


def _environment() -> jinja2.Environment:
    """Everything that a template prints is escaped, unless it is this package's own."""
    environment = templates(_FOLDER, escape=True)
    environment.filters |= {"count": "{:,}".format, "percent": "{:.1%}".format, "at": "{:.3f}".format, "short": number}
    environment.filters["size"] = _size
    return environment


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy under which only this style and this script count, and nothing is loaded."""
    return (
        f"default-src 'none'; style-src {_allowed(style)}; script-src {_allowed(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _allowed(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def style() -> str:
    """The pages' style sheet."""
    return _source("page.css")


def _source(name: str) -> str:
    """A file of this package that goes into the page as it is."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    if re.search(r"</(script|style)|<!--", text, re.IGNORECASE):
        raise ValueError(f"{name} has markup in it that would end its element")
    return text


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text if len(text) <= _TEXT_SHOWN else f"{text[:_TEXT_SHOWN]}\n… the rest is in manifest.json"


def _size(count: int) -> str:
    """Bytes for people, in powers of 1000."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{count:,} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
