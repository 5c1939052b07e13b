from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from flowkiln.envs.cutoff import absolute
from flowkiln.envs.errors import BadCutoff

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("2026-01-31", "2026-02-01T00:00:00Z"),
        (date(2026, 12, 31), "2027-01-01T00:00:00Z"),
        ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
        ("2026-01-31T10:00:00+02:00", "2026-01-31T08:00:00Z"),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00Z"),
    ],
)
def test_absolute(given: object, wanted: str) -> None:
    assert absolute(given) == wanted


@pytest.mark.parametrize(
    ("given", "paste"),
    [
        ("7 days", "2026-03-24"),
        ("1 week ago", "2026-03-24"),
        ("last 24 hours", "2026-03-30"),
        ("P7D", "2026-03-24"),
        ("PT24H", "2026-03-30"),
        ("1 month", "2026-03-01"),
    ],
)
def test_relative_dates_are_refused_with_the_line_to_paste(given: str, paste: str) -> None:
    with pytest.raises(BadCutoff) as caught:
        absolute(given, now=NOW)
    assert f'exclude_newer="{paste}"' in str(caught.value.hint)


@pytest.mark.parametrize("given", ["2026-02-30", "yesterday", "", "31.01.2026", "2026-01-31T10:00:00", 7, "P"])
def test_other_texts_are_refused(given: object) -> None:
    with pytest.raises(BadCutoff) as caught:
        absolute(given, now=NOW)
    assert "exclude_newer=" in str(caught.value.hint)
