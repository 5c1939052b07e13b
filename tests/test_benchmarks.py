"""The page of benchmarks says of every aim that is missed why."""

from __future__ import annotations

from benchmarks.__main__ import explanations, missed, page
from benchmarks.measure import Row


def row(work: str, *, met: bool) -> Row:
    return Row(work=work, peer="itself", ours="2 s", theirs="1 s", ratio="2", aim="1", met=met)


def test_a_missed_aim_is_explained_below_the_table() -> None:
    rows = [row("lock, warm", met=True), row("foreach of 10,000", met=False), row("start", met=False)]
    text = missed(rows, {"foreach of": "Forking\ncosts.", "lock": "unseen"})
    assert "## Where an aim is missed\n" in text
    assert "* **foreach of 10,000** (aim: 1): Forking costs.\n" in text
    assert "* **start** (aim: 1): not explained yet.\n" in text
    assert "lock" not in text


def test_the_page_has_that_section_only_when_it_says_something() -> None:
    assert "Where an aim is missed" not in page([row("lock", met=True)])
    assert page([row("lock", met=False)]).endswith(missed([row("lock", met=False)], explanations()))
