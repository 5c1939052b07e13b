"""Keeps secrets out of what is shown or stored."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_IN_TEXT = re.compile(r"(?i)(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<secret>[^\s/'\"]+)@")
_QUERY = re.compile(
    r"(?i)(?P<key>[?&](?:[a-z0-9_.-]*(?:token|secret|password|signature|credential|key)[a-z0-9_.-]*)=)[^&\s#'\"]+"
)


def url(text: str) -> str:
    """``text`` without user name and password, for storing: the host stays, the secret goes."""
    try:
        parts = urlsplit(text)
    except ValueError:  # no URL: whoever asked refuses it, with this in the message
        return _IN_TEXT.sub(r"\g<scheme>", text)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, parts.fragment))


def in_query(text: str) -> str | None:
    """The name of a parameter in the query of a URL that holds a secret by its name, None where there is none."""
    found = _QUERY.search(text)
    return found["key"].strip("?&=") if found else None


def text(message: str) -> str:
    """``message`` with the secrets of every URL in it replaced by ``***``, for showing."""
    masked = _IN_TEXT.sub(r"\g<scheme>***@", message)
    return _QUERY.sub(r"\g<key>***", masked)
