"""The page of benchmarks says of every aim that is missed why."""

from __future__ import annotations

from benchmarks.__main__ import explanations, missed, page, rows_of, section, sections, table
from benchmarks.measure import Row


def row(work: str, *, met: bool | None) -> Row:
    return Row(work=work, peer="itself", ours="2 s", theirs="1 s", ratio="2", aim="1", met=met)


def test_a_missed_aim_is_explained_below_the_table() -> None:
    rows = [row("lock, warm", met=True), row("foreach of 10,000", met=False), row("start", met=False)]
    text = missed(rows, {"foreach of": "Forking\ncosts.", "lock": "unseen"})
    assert "## Where an aim is missed\n" in text
    assert "* **foreach of 10,000** (aim: 1): Forking costs.\n" in text
    assert "* **start** (aim: 1): not explained yet.\n" in text
    assert "lock" not in text


def test_the_page_has_that_section_only_when_it_says_something() -> None:
    assert "Where an aim is missed" not in page({"locking": section([row("lock", met=True)])})
    short = row("lock", met=False)
    assert page({"locking": section([short])}).endswith(missed([short], explanations()))


def test_a_row_without_an_aim_is_neither_met_nor_missed() -> None:
    told = row("pull", met=None)
    assert table([told]).endswith("| 1 | - |\n")
    assert missed([told], {}) == ""


def test_what_is_not_measured_again_stays_on_the_page() -> None:
    kept, changed = row("lock, warm", met=False), row("bake", met=True)
    text = page({"baking": section([row("bake", met=False)]), "locking": section([kept])})
    found = sections(text)
    assert list(found) == ["locking", "baking"]
    again = page(found | {"baking": section([changed])})
    assert rows_of(again) == [kept, changed]
    assert sections(again)["locking"] == found["locking"]
    assert "lock, warm" in again.partition("Where an aim is missed")[2]
