from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.relocate import ENCODINGS, Kind, PrefixTooLong, restored, written

OLD = "/old/placehold_placehold"
NEW = "/opt/env"
PIECES = st.lists(
    st.sampled_from([one.encode(encoding) for one in (OLD, NEW) for encoding in ENCODINGS])
    | st.sampled_from([OLD.encode(), NEW.encode(), b"\0", b"\0\0\0", b"/bin/x", b"a", b"\n"])
    | st.binary(max_size=6),
    max_size=30,
).map(b"".join)


@pytest.mark.parametrize(
    ("kind", "data", "expected", "offsets"),
    [
        ("text", b"#!<OLD>/bin/python\nx = '<OLD>'\n", b"#!/opt/env/bin/python\nx = '/opt/env'\n", [2, 27]),
        ("binary", b"A\0<OLD>/lib\0B", b"A\0/opt/env/lib" + bytes(17) + b"B", [2]),
        ("binary", b"a:<OLD>/b:<OLD>/c\0B", b"a:/opt/env/b:/opt/env/c" + bytes(33) + b"B", [2, 13]),
        ("binary", b"<OLD>", b"/opt/env" + bytes(16), [0]),
        ("text", b"/opt/env and <OLD>", b"/opt/env and /opt/env", [13]),
        ("text", b"nothing", b"nothing", []),
    ],
)
def test_the_prefix_stands_where_the_placeholder_stood(
    kind: Kind, data: bytes, expected: bytes, offsets: list[int]
) -> None:
    stored = data.replace(b"<OLD>", OLD.encode())
    found = [offsets] if offsets else []
    assert written(stored, OLD, NEW, kind) == (expected, found)
    if kind == "binary":
        assert len(expected) == len(stored)
    assert restored(expected, found, OLD, NEW, kind) == stored


@given(PIECES, st.sampled_from(["text", "binary"]), st.sampled_from([NEW, OLD[:-1], OLD, "/"]))
def test_what_is_written_comes_back(data: bytes, kind: Kind, prefix: str) -> None:
    made, offsets = written(data, OLD, prefix, kind)
    assert restored(made, offsets, OLD, prefix, kind) == data
    assert kind == "text" or len(made) == len(data)


@given(PIECES, PIECES, st.sampled_from(["text", "binary"]))
def test_a_changed_file_is_never_taken_for_the_stored_one(data: bytes, other: bytes, kind: Kind) -> None:
    made, offsets = written(data, OLD, NEW, kind)
    if other != made:
        assert restored(other, offsets, OLD, NEW, kind) != data


def test_a_longer_prefix_fits_into_texts_alone() -> None:
    longer = "/x" * 40
    assert written(OLD.encode(), OLD, longer, "text") == (longer.encode(), [[0]])
    with pytest.raises(PrefixTooLong, match="80 bytes; there is room for 24"):
        written(OLD.encode(), OLD, longer, "binary")
    with pytest.raises(PrefixTooLong):
        written(b"", OLD, longer, "binary")
