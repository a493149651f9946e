"""Whether this machine may publish where a config says, asked before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill_data.errors import PublishError, reason_of
from distill_data.publish.publishable import RepoType
from distill_data.publish.retry import status_of
from distill_data.publish.secrets import censored_logs, without_secrets
from distill_data.publish_config import Publish

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_WRITES = {"admin", "write", "contributor"}  # roles in an organization that may make repositories
_NEW_TOKEN = "give a token that may write as HF_TOKEN or by `hf auth login`"


def check_rights(to: Publish, repo_type: RepoType = "dataset") -> str:
    """What was found, in words. Asks the hub who the token belongs to, and whether that one may write; writes nothing.

    Of destinations that are no hub nothing is asked: only writing shows whether it is allowed.

    Raises:
        PublishError: there is no token, it may not write there, or the hub does not answer.
    """
    from huggingface_hub import HfApi, get_token

    if to.repo_id is None:
        return f"{to.to} is no hub: whether it can be written shows when something is published"
    if get_token() is None:
        raise PublishError(f"there is no token for {to.to}: {_NEW_TOKEN}, or leave publish: out")
    api = HfApi(endpoint=to.endpoint, library_name="distill-data")
    try:
        with censored_logs():
            return _rights(api, to, repo_type, api.whoami())
    except PublishError:
        raise
    except Exception as error:  # clients raise what they like, with headers in it
        if status_of(error) in (401, 403):
            raise PublishError(f"the hub refuses this token for {to.to}: {_NEW_TOKEN}") from None
        raise PublishError(
            f"{api.endpoint} could not be asked about {to.to} ({without_secrets(reason_of(error))}): check the address "
            "and the network, or leave publish: out"
        ) from None


def _rights(api: HfApi, to: Publish, repo_type: RepoType, who: dict[str, Any]) -> str:
    """The rights of an account on a repository, or on its owner's name where it is not there yet."""
    from huggingface_hub.errors import RepositoryNotFoundError

    name, repo_id = who["name"], str(to.repo_id)
    try:
        is_private = api.repo_info(repo_id, repo_type=repo_type).private
    except RepositoryNotFoundError:
        _require_owner(to, who)
        return f"{name} may make {to.to} at {api.endpoint}"
    if to.private and not is_private:
        raise PublishError(f"{to.to} is public and private: true asks for a private one: change one of them")
    api.auth_check(repo_id, repo_type=repo_type, write=True)
    return f"{name} may write {to.to} at {api.endpoint}"


def _require_owner(to: Publish, who: dict[str, Any]) -> None:
    """Refuse a new repository under a name that the account may make none under."""
    owner = str(to.repo_id).split("/")[0]
    roles = {org["name"]: org.get("roleInOrg", "write") for org in who.get("orgs", [])}
    if owner != who["name"] and roles.get(owner) not in _WRITES:
        raise PublishError(f"{who['name']} may not make {to.to}, which is not there yet: publish under another name")
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise PublishError(f"the token of {who['name']} only reads, and {to.to} is not there yet: {_NEW_TOKEN}")
