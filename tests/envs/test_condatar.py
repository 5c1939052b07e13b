"""Tars as they are read here, held against what ``tarfile`` writes and reads."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs.condatar import Member, Tar, TarDamaged, TooLarge

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
PARTS = st.text("abä", min_size=1, max_size=60)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(lambda path: len(path.encode()) < 240)


def made(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return raw.getvalue()


def entry(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(data), kind, target, mode
    return info, data


def read(data: bytes, limit: int = 1 << 30, step: int = 1 << 18) -> list[tuple[Member, bytes]]:
    stream = io.BytesIO(data)
    archive = Tar(lambda wanted: stream.read(min(wanted, step)), limit)
    return [(member, b"".join(archive.blocks())) for member in archive]


@given(
    st.lists(st.tuples(PATHS, st.binary(max_size=1500), st.booleans()), max_size=6),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.sampled_from([1, 511, 512, 700, 1 << 18]),
)
def test_what_tarfile_writes_is_read(files: list[tuple[str, bytes, bool]], form: int, step: int) -> None:
    data = made(*(entry(path, body, mode=0o755 if run else 0o644) for path, body, run in files), form=form)
    assert read(data, step=step) == [(Member(path, "file", len(body), run, ""), body) for path, body, run in files]


@pytest.mark.parametrize("form", FORMATS)
def test_kinds_and_targets(form: int) -> None:
    long = "d" * 90 + "/" + "f" * 60
    data = made(
        entry("./here/", kind=tarfile.DIRTYPE, mode=0o755),
        entry(long, b"x" * 513),
        entry("l", kind=tarfile.SYMTYPE, target="t" * 90),
        entry("h", kind=tarfile.LNKTYPE, target="a"),
        entry("pipe", kind=tarfile.FIFOTYPE),
        form=form,
    )
    assert [(one.path.rstrip("/"), one.kind, one.target) for one, _ in read(data)] == [
        ("here", "folder", ""),
        (long, "file", ""),
        ("l", "link", "t" * 90),
        ("h", "hard link", "a"),
        ("pipe", "other", ""),
    ]


def test_long_targets_and_large_sizes_come_from_extended_headers() -> None:
    data = made(entry("l", kind=tarfile.SYMTYPE, target="ä" * 150), entry("after", b"1"))
    assert [member.target for member, _ in read(data)] == ["ä" * 150, ""]
    info, body = entry("big", b"12345")
    info.pax_headers = {"size": "5", "path": "bigger"}
    assert read(made((info, body), entry("b"))) == [
        (Member("bigger", "file", 5, False, ""), b"12345"),
        (Member("b", "file", 0, False, ""), b""),
    ]


def test_what_is_not_read_is_passed_over() -> None:
    stream = io.BytesIO(made(entry("a", bytes(700_000)), entry("b", b"2")))
    assert [member.path for member in Tar(stream.read, 1 << 30)] == ["a", "b"]


GOOD = made(entry("a", b"1" * 600), entry("b", b"2"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD[:700], "within a file"),
        (GOOD[:200], "within a header"),
        (b"x" * 512, "checksum|for a number"),
        (b"z" + GOOD[1:], "checksum"),
    ],
)
def test_damage_is_told(data: bytes, why: str) -> None:
    with pytest.raises(TarDamaged, match=why):
        read(data)


@pytest.mark.parametrize(
    "headers", [{"size": "-1"}, {"size": "abc"}, {"size": "9" * 30}, {"comment": "x" * (2 << 20)}]
)
def test_extended_headers_that_cannot_be(headers: dict[str, str]) -> None:
    info, body = entry("a", b"1")
    info.pax_headers = headers
    with pytest.raises(TarDamaged):
        read(made((info, body)))


def test_no_more_is_read_than_allowed() -> None:
    with pytest.raises(TooLarge):
        read(made(entry("a", bytes(3 << 20))), limit=1 << 20)


@given(st.binary(max_size=3000), st.integers(0, len(GOOD)), st.integers(0, 600))
def test_any_bytes_are_read_or_refused(noise: bytes, at: int, length: int) -> None:
    try:
        found = read(GOOD[:at] + noise[:length] + GOOD[at + length :])
    except TarDamaged:
        return
    assert all(member.size == len(data) for member, data in found)


@given(st.binary(max_size=120))
def test_any_extended_header_is_read_or_refused(records: bytes) -> None:
    info, _ = entry("pax", records, kind=tarfile.XHDTYPE)
    data = info.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + GOOD
    try:
        read(data)
    except TarDamaged:
        return
