"""Whose certificates are trusted: the one decision, for our own downloads and for uv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTING = "FLOWKILN_CERTIFICATES"
NATIVE = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""What OpenSSL and uv read themselves."""
_OTHERS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
"""What requests, curl and pip read, best first."""


def named(environ: Mapping[str, str]) -> str | None:
    """The file or folder of certificates that ``environ`` names; None for the system's and OpenSSL's own.

    The setting ``certificates`` comes first, then ``SSL_CERT_FILE``. ``SSL_CERT_DIR`` is left to those who read it;
    where neither is set, the variables of requests, curl and pip count, so that what pip trusts is trusted.
    """
    first = environ.get(SETTING) or environ.get("SSL_CERT_FILE")
    if first or environ.get("SSL_CERT_DIR"):
        return first or None
    return next((environ[name] for name in _OTHERS if environ.get(name)), None)


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that make uv trust the same."""
    told = {name: environ[name] for name in NATIVE if environ.get(name)}
    path = named(environ)
    if path is None or path == told.get("SSL_CERT_FILE"):
        return told
    return {"SSL_CERT_DIR" if Path(path).is_dir() else "SSL_CERT_FILE": path}
