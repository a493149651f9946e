"""Publish a version or a student: to a hub's repository, or to any URL that fsspec writes to."""

from distill_data.publish.publishing import destination_of, publish_student, publish_version
from distill_data.publish.report import PublishedFile, PublishReport
from distill_data.publish.rights import check_rights
from distill_data.publish.student import is_student

__all__ = [
    "PublishReport", "PublishedFile", "check_rights", "destination_of", "is_student", "publish_student",
    "publish_version",
]  # fmt: skip
