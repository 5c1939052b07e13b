"""Python versions that environments may have, and the newest patch known of each."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet

from flowkiln.envs.errors import UnsupportedPython

if TYPE_CHECKING:
    from collections.abc import Mapping

NEWEST_PATCH: Mapping[str, int] = {"3.11": 18, "3.12": 16, "3.13": 18, "3.14": 10, "3.15": 2}
"""Newest patch release known of each supported ``X.Y``. Markers are resolved for it; bounds say what else holds."""

SUPPORTED = tuple(NEWEST_PATCH)

_FORM = re.compile(r"(?P<minor>3\.\d+)(?:\.(?P<patch>\d+))?")


def check(text: str, *, step: str | None = None) -> str:
    """``X.Y`` or ``X.Y.Z`` as given, when supported. Raises ``UnsupportedPython``."""
    cleaned = text.strip()
    match = _FORM.fullmatch(cleaned)
    if match and match["minor"] in SUPPORTED:
        return cleaned
    hint = f'Write one of {", ".join(SUPPORTED)}, for example python="{SUPPORTED[0]}".'
    if re.fullmatch(r"3\.\d+(\.\d+)?t", cleaned):
        message = f"Python {text!r} is a free-threaded build; environments have the ordinary build only"
    elif re.fullmatch(r"3\.(\d|10)(\.\d+)?", cleaned) or cleaned.startswith("2"):
        message = f"Python {text!r} has reached its end of life and gets no environment"
    else:
        message = f"Python {text!r} is not a version that environments can have"
    raise UnsupportedPython(message, step=step, hint=hint)


def minor(python: str) -> str:
    """The ``X.Y`` of ``X.Y`` or ``X.Y.Z``."""
    return ".".join(python.split(".")[:2])


def full(python: str, patches: Mapping[str, str] | None = None) -> str:
    """``X.Y.Z`` to resolve for: the given patch, else the one in ``patches``, else the newest known."""
    if python.count(".") == 2:
        return python
    told = (patches or {}).get(python)
    return told or f"{python}.{NEWEST_PATCH[python]}"


def decide(asked: str | None, admitted: str | None, before: str | None) -> str:
    """The Python of an environment: what is asked for, else the one it had, else this interpreter's ``X.Y``.

    ``admitted`` is a ``requires-python`` that the answer satisfies. Raises ``UnsupportedPython`` when none does.
    """
    specifier = SpecifierSet(admitted or "")
    if asked is not None:
        checked = check(asked)
        if not specifier.contains(full(checked), prereleases=True):
            message = f"Python {asked} is asked for, but requires-python is {admitted!r}"
            raise UnsupportedPython(message, hint="Change one of the two.")
        return checked
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (before, running, *reversed(SUPPORTED)):
        if candidate is None or candidate not in SUPPORTED:
            continue
        if specifier.contains(full(candidate), prereleases=True):
            return candidate
    message = f"no supported Python satisfies requires-python {admitted!r}"
    raise UnsupportedPython(message, hint=f"Supported are {', '.join(SUPPORTED)}.")
