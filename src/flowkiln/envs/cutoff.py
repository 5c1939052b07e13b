"""Cut-off dates: packages published later do not exist for a lock. Absolute only."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from flowkiln.envs.errors import BadCutoff

_UNITS = {"hour": 1, "day": 24, "week": 168, "month": 720, "year": 8760}
_WORDS = re.compile(r"(?i)^\s*(?:last\s+)?(\d+)\s*(hour|day|week|month|year)s?(?:\s+ago)?\s*$")
_ISO = re.compile(r"(?i)^P(?:(\d+)W)?(?:(\d+)D)?(?:T(\d+)H)?$")


def absolute(value: object, *, now: datetime | None = None) -> str:
    """``value`` as a time in UTC, ``2026-02-01T00:00:00Z``; a date means the end of that day.

    Accepts a date, a time with its offset, and TOML's values of both. Raises ``BadCutoff`` with the line to paste.
    """
    if isinstance(value, datetime):
        return _utc(value, str(value))
    if isinstance(value, date):
        return _end_of(value)
    text = str(value).strip()
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return _end_of(date.fromisoformat(text))
        if re.match(r"\d{4}-\d\d-\d\d[Tt ]", text):
            return _utc(datetime.fromisoformat(text.upper()), text)
    except (ValueError, OverflowError) as error:
        message = f"exclude_newer={text!r} is not a date: {error}"
        raise BadCutoff(message, hint='Write for example exclude_newer="2026-01-31".') from error
    span = _span(text)
    if span is not None:
        today = (now or datetime.now(UTC)) - span
        message = f"exclude_newer={text!r} is relative, so it would mean something else every day"
        raise BadCutoff(message, hint=f'Write exclude_newer="{today.date().isoformat()}".')
    message = f"exclude_newer={text!r} is not a date"
    raise BadCutoff(message, hint='Write for example exclude_newer="2026-01-31".')


def _end_of(day: date) -> str:
    return _utc(datetime.combine(day + timedelta(days=1), time(), UTC), str(day))


def _utc(moment: datetime, shown: str) -> str:
    if moment.tzinfo is None:
        message = f"exclude_newer={shown!r} has no offset, so it would differ by time zone"
        raise BadCutoff(message, hint=f'Write exclude_newer="{moment.isoformat()}Z".')
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _span(text: str) -> timedelta | None:
    if match := _WORDS.match(text):
        return timedelta(hours=int(match[1]) * _UNITS[match[2].lower()])
    if (match := _ISO.match(text)) and any(match.groups()):
        weeks, days, hours = (int(part or 0) for part in match.groups())
        return timedelta(weeks=weeks, days=days, hours=hours)
    return None
