"""What `serve` tells."""

from __future__ import annotations

from dataclasses import dataclass

from distill_data.report.lines import field
from distill_data.schedule_config import Schedule


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
            field("cron", f"{report.cron} ({report.timezone})"),
            field("overlap", "a run that is due while one is at work " + _OVERLAP[report.overlap]),
            field("Prefect", page),
            field("end", "Ctrl-C; what runs then is ended, and everything that it finished is kept"),
        ]
    )


_OVERLAP = {"skip": "is left out", "queue": "waits for it"}
