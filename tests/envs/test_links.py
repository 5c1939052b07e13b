from __future__ import annotations

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs.links import escaping


@pytest.mark.parametrize(
    ("links", "escapes"),
    [
        ({"lib/a.so": "a.so.1"}, None),
        ({"a/b": "../c"}, None),
        ({"a": "."}, None),
        ({"a": ".."}, "a"),
        ({"a/b": "../../env/c"}, "a/b"),
        ({"a": "/etc/passwd"}, "a"),
        ({"a/b/c/l": "../../..", "a/t": "b/c/l/../../etc/hostname"}, "a/t"),
        ({"a/l": "deep/er", "a/t": "l/../../.."}, None),
        ({"a/one": "two", "a/two": "one"}, None),
        ({"lib/here": "..", "x": "lib/here/lib/here/../etc"}, "x"),
    ],
)
def test_links_are_followed_by_way_of_one_another(links: dict[str, str], escapes: str | None) -> None:
    assert escaping(links) == escapes


def test_names_that_are_one_on_the_file_system_are_one() -> None:
    links = {"a/B/c/l": "../../..", "a/t": "b/c/l/../../etc"}
    assert escaping(links) is None
    assert escaping(links, str.casefold) == "a/t"


_NAMES = st.sampled_from(["a", "b", "c"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=3).map("/".join)
_TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", "."]), min_size=1, max_size=6).map("/".join)


@given(st.dictionaries(_PATHS, _TARGETS, max_size=5))
def test_no_link_that_passes_leads_out_on_a_disk(links: dict[str, str]) -> None:
    with TemporaryDirectory() as name:
        root = Path(name, "root").resolve()
        root.mkdir()
        written = {}
        for path, target in links.items():
            place = root / path
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)
            except (FileExistsError, NotADirectoryError, FileNotFoundError, OSError):
                continue
            if place.parent.resolve() != place.parent:
                place.unlink()  # it went through a link: no tree has such a path
                continue
            written[path] = target
        if escaping(written) is None:
            for path in written:
                try:
                    (root / path).stat()
                except OSError as error:
                    if error.errno == errno.ELOOP:
                        continue  # no system opens it
                led = Path(os.path.realpath(root / path))
                assert led == root or root in led.parents
