from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs.links import leaves

if TYPE_CHECKING:
    from pathlib import Path

NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
TARGETS = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ""]), min_size=1, max_size=6).map("/".join)


@pytest.mark.parametrize(
    ("links", "out"),
    [
        ({"a": "/etc"}, True),
        ({"a": ""}, True),
        ({"a": ".."}, True),
        ({"a": "."}, False),
        ({"a/b": ".."}, False),
        ({"a/b": "../.."}, True),
        ({"a/b": "c/../../x"}, False),
        ({"a/b": "c/d", "a/c": ".."}, False),
        ({"a/b": "c/../x", "a/c": ".."}, True),
        ({"a": "b", "b": "a"}, False),
        ({"a": "b", "b": "/"}, True),
    ],
)
def test_where_links_lead(links: dict[str, str], out: bool) -> None:
    assert leaves(next(iter(links)), links) == out


@given(st.dictionaries(NAMES, TARGETS, min_size=1, max_size=5))
def test_the_kernel_goes_out_of_no_link_that_stays(
    tmp_path_factory: pytest.TempPathFactory, links: dict[str, str]
) -> None:
    links = {
        path: target
        for path, target in links.items()
        if target and not any(path.startswith(f"{other}/") for other in links)
    }
    base: Path = tmp_path_factory.mktemp("deep")
    root = base / "prefix"
    for folder in ("a/a/a", "b/b/b", "c/c/c"):
        if not any(folder == path or folder.startswith(f"{path}/") for path in links):
            (root / folder).mkdir(parents=True)
    for path, target in links.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(target)
    made = {path: target for path, target in links.items() if (root / path).is_symlink()}
    for path in made:
        if not leaves(path, made):
            try:
                reached = (root / path).resolve(strict=True)
            except (OSError, RuntimeError):
                continue  # it leads nowhere, or in a circle
            assert reached.is_relative_to(root)
