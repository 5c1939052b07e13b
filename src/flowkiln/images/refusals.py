"""Answers that are not what was asked for, as errors: one for each thing that can be wrong."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from flowkiln._base import redact
from flowkiln.images import login
from flowkiln.images.registryerrors import (
    ManifestUnknown,
    RegistryError,
    RegistryFailed,
    RegistryForbidden,
    RegistryThrottled,
    RepositoryUnknown,
    UploadFailed,
)

if TYPE_CHECKING:
    from flowkiln._base.json import JSONObject
    from flowkiln.images.http import Answer

TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which the same request may succeed."""
_ABSENT = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "BLOB_UNKNOWN", "TAG_UNKNOWN"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_GOOGLE = re.compile(r"(?P<location>[a-z0-9-]+)-docker\.pkg\.dev")


def document(answer: Answer) -> JSONObject:
    """The JSON object that a short answer holds; empty for anything else."""
    try:
        found = json.loads(answer.start())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def problems(found: JSONObject) -> list[tuple[str, str]]:
    """Code and message of each error that an error document lists; empty when it is none."""
    listed = found.get("errors")
    if not isinstance(listed, list):
        return []
    rows = [one for one in listed if isinstance(one, dict)]
    return [
        (str(one.get("code") or "UNKNOWN"), _line(one.get("message") or one.get("detail") or "")) for one in rows
    ]


def said(answer: Answer) -> str:
    """What the registry said of an error, as ``: CODE: message``, or nothing."""
    return _told(problems(document(answer)))


def is_absent(answer: Answer) -> bool:
    """Whether a 404 says for certain that the registry does not hold what was asked for.

    A 404 without the registry's own words may come from something that is not a registry.
    """
    if answer.status != 404:
        return False
    codes = {code for code, _ in problems(document(answer))}
    return bool(codes) and codes <= _ABSENT


def refusal(host: str, repository: str, doing: str, answer: Answer) -> RegistryError:
    """The error that an answer is. ``doing`` says what was asked, such as ``read the manifest fk-1``."""
    status = answer.status
    found = problems(document(answer))
    codes = {code for code, _ in found}
    where = f"{host}/{repository}".rstrip("/")
    told = f"{where}: cannot {doing}: {status}{_told(found)}"
    if status == 404:
        return _absence(host, repository, told, found)
    if status == 403:
        return RegistryForbidden(told)
    if status == 405:
        return RegistryForbidden(told, hint="The registry has this operation switched off.")
    if status == 429:
        waits = retry_after(answer)
        return RegistryThrottled(told, retryable=True, data={} if waits is None else {"retry_after": waits})
    if status >= 500 or status == 408:
        return RegistryFailed(told, retryable=True)
    if status == 413 or (status in (400, 416, 422) and codes):
        return UploadFailed(told)
    return RegistryFailed(told)


def _absence(host: str, repository: str, told: str, found: list[tuple[str, str]]) -> RegistryError:
    codes = {code for code, _ in found}
    if "NAME_UNKNOWN" in codes:
        message = f"{host}/{repository} does not exist{_told(found)}"
        return RepositoryUnknown(message, hint=_creation(host, repository))
    if codes & _ABSENT:
        return ManifestUnknown(told)
    if "BLOB_UPLOAD_UNKNOWN" in codes:
        return UploadFailed(told, retryable=True)
    if codes:
        return RegistryFailed(told)
    return RegistryFailed(f"{told} and no word of what is unknown", hint=f"Is {host} a registry of images?")


def retry_after(answer: Answer) -> int | None:
    """Whole seconds of a Retry-After header, given as a number or as a date."""
    text = (answer.headers.get("Retry-After") or "").strip()
    if text.isdecimal():
        return int(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0, round((at - datetime.now(tz=UTC)).total_seconds())) if at.tzinfo else None


def _creation(host: str, repository: str) -> str | None:
    """How a repository is made there; None where nothing better is known than the general advice."""
    ecr = login.ecr(host)
    if ecr is not None:
        return f"aws ecr create-repository --repository-name {repository} --region {ecr[1]}"
    google = _GOOGLE.fullmatch(host)
    if google is not None and repository.count("/") >= 2:
        project, name = repository.split("/")[:2]
        place = f"--location {google['location']} --project {project}"
        return f"gcloud artifacts repositories create {name} --repository-format docker {place}"
    return None


def _told(found: list[tuple[str, str]]) -> str:
    texts = [f"{code}: {message}" if message else code for code, message in found[:3]]
    return f": {'; '.join(texts)}" if texts else ""


def _line(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return redact.text(_CONTROL.sub(" ", text))[:300]
