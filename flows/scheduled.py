"""The flow that a schedule runs: the config is read anew every time, and then everything that it asks for is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, tags
from prefect.states import Completed

from distill_data.config_file import load_config
from distill_data.errors import GateError
from distill_data.report.run import one_line
from flows.distill import distill
from flows.reporting import name_run, publish_run_summary

TAG = "distill-data"  # of every run and its subflows


@flow(name="distill-data", flow_run_name="distill-data {config}")
def scheduled(config: str, overrides: list[str] | None = None) -> Any:
    """Build what is new, promote it, and train on it where `schedule.train` says so.

    Args:
        config: path of a YAML config, on the machine that runs this.
        overrides: as `--set` takes them.

    Raises:
        GateError: a version was made and is not promoted.
        DistillDataError: with one line that says what to do; what was finished is kept, and the next run goes on.
    """
    settings = load_config(Path(config), overrides or [])
    with tags(TAG):  # its subflows are watched over too
        try:
            report = distill(settings, train=settings.schedule is not None and settings.schedule.train)
        except GateError as failed:
            publish_run_summary(failed.report, None)
            raise
    publish_run_summary(report.build, report.published)
    name_run(f"distill-data {report.build.corpus}")
    return Completed(message=one_line(report))
