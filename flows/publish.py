"""The publish flows: one version, or one student, to its destination."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from distill_data.progress import display
from distill_data.publish import PublishReport, publish_student, publish_version
from distill_data.publish_config import Publish
from distill_data.report.files import publish_summary as summary_of
from flows.reporting import artifact_key, link_to, name_run, publish_summary


@task(name="publish", cache_policy=NO_CACHE)
def publish_task(root: str, corpus: str, destination: Publish) -> PublishReport:
    """Verify and publish, unless the version is there."""
    return publish_version(root, corpus, destination, say=display().note)


@flow(name="publish", flow_run_name="publish {corpus}", validate_parameters=False)
def publish_corpus(root: str, corpus: str, destination: Publish) -> PublishReport:
    """Publish a version.

    Raises:
        DistillDataError: with one line that says what to do; nothing half done is visible there.
    """
    return _shown(publish_task(root, corpus, destination))


@task(name="publish student", cache_policy=NO_CACHE)
def publish_student_task(root: str, student: str, destination: Publish) -> PublishReport:
    """Publish the student, unless it is there."""
    return publish_student(root, student, destination, say=display().note)


@flow(name="publish student", flow_run_name="publish {student}", validate_parameters=False)
def publish_trained(root: str, student: str, destination: Publish) -> PublishReport:
    """Publish a trained student.

    Raises:
        DistillDataError: with one line that says what to do; nothing half done is visible there.
    """
    return _shown(publish_student_task(root, student, destination))


def _shown(report: PublishReport) -> PublishReport:
    name_run(f"publish {report.corpus}")
    publish_summary(report.corpus, "published", summary_of(report))
    if report.delivery is not None and report.delivery.address.startswith("http"):
        description = f"{report.corpus}, published as {report.delivery.revision}"
        link_to(report.delivery.address, f"{artifact_key(report.corpus)}-revision", description)
    return report
