from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from flowkiln.executor.lines import Lines


def split(data: bytes, *cuts: int) -> list[str]:
    lines = Lines()
    texts: list[str] = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        if data[begin:end]:
            texts += lines.feed(data[begin:end], 0.0)
    return texts + lines.finish()


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))), st.data())
def test_lines_come_out_as_they_went_in_wherever_reads_end(texts: list[str], data: st.DataObject) -> None:
    whole = "".join(text + "\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    assert split(whole, *cuts) == texts


@given(st.binary(), st.data())
def test_no_byte_stops_it(whole: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    assert all("\n" not in text and "\r" not in text for text in split(whole, *cuts))


def test_a_last_line_without_an_end() -> None:
    assert split(b"a\nb") == ["a", "b"]
    assert split(b"") == []
    assert split(b"a\n\n") == ["a", ""]


def test_a_character_cut_by_two_reads() -> None:
    assert split("é\n".encode(), 1) == ["é"]


def test_dos_line_ends_are_line_ends_wherever_they_are_cut() -> None:
    assert split(b"a\r\nb\r\n", 2) == ["a", "b"]


def test_a_progress_bar_is_shown_once_a_second_and_at_its_end() -> None:
    lines = Lines()
    shown = [lines.feed(f"\r{step}%".encode(), step / 10) for step in range(31)]
    assert [text for texts in shown for text in texts] == ["9%", "19%", "29%"]
    assert lines.feed(b"\r100%\n", 4.0) == ["100%"]


def test_a_line_without_end_is_cut_between_characters() -> None:
    whole = ("é" * 100_001).encode()
    texts = split(b"x" + whole)
    assert "".join(texts) == "x" + "é" * 100_001
    assert max(len(text.encode()) for text in texts) <= 64 * 1024
