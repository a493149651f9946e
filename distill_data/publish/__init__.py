"""Publish a version: to a hub's dataset repository, or to any URL that fsspec writes to."""

from distill_data.publish.publishing import destination_of, publish_version
from distill_data.publish.report import PublishedFile, PublishReport
from distill_data.publish.rights import check_rights

__all__ = ["PublishReport", "PublishedFile", "check_rights", "destination_of", "publish_version"]
