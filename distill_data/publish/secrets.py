"""Nothing secret in what is said: tokens and signatures are cut out of messages and of the hub client's log."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = "…"
_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_PATTERNS = [
    (re.compile(r"hf_[A-Za-z0-9]{8,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{4,}"), rf"\1 {HIDDEN}"),
    (re.compile(r"(://)[^/@\s]+@"), rf"\1{HIDDEN}@"),  # user:password@
    (re.compile(r"(https?://[^\s?'\"<>]+)\?[^\s'\"<>]*"), rf"\1?{HIDDEN}"),  # signed addresses
]
_LOGGERS = ("huggingface_hub", "hf_xet", "httpx2", "fsspec", "s3fs", "botocore", "aiobotocore")


def without_secrets(text: str) -> str:
    """A text without this machine's tokens, and without what looks like one, a password or a signed address."""
    for secret in _own_tokens():
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _own_tokens() -> set[str]:
    from huggingface_hub import get_token

    found = {os.environ.get(name, "").strip() for name in _TOKEN_VARIABLES} | {get_token() or ""}
    return {token for token in found if len(token) >= 8}  # a shorter one would cut words


class _Censor(logging.Filter):
    """Rewrites records as they pass; on handlers, so that those of child loggers pass too."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), None
        if record.exc_info:
            record.exc_text = without_secrets(logging.Formatter().formatException(record.exc_info))
            record.exc_info = None
        return True


@contextmanager
def censored_logs() -> Iterator[None]:
    """While the block runs, what the hub's and the stores' clients log holds no secret."""
    import huggingface_hub.hf_api  # noqa: F401  sets up its handler, which must be there to be censored

    censor = _Censor()
    loggers = [logging.getLogger(name) for name in (*_LOGGERS, None)]
    handlers = {id(handler): handler for logger in loggers for handler in logger.handlers}
    if logging.lastResort is not None:
        handlers[id(logging.lastResort)] = logging.lastResort
    for handler in handlers.values():
        handler.addFilter(censor)
    try:
        yield
    finally:
        for handler in handlers.values():
            handler.removeFilter(censor)
