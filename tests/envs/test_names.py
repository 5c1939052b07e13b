from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flowkiln.envs.installerrors import HostileWheel
from flowkiln.envs.names import check_path, collision_key


@given(st.text(max_size=40))
def test_an_accepted_path_stays_below_its_root(text: str) -> None:
    try:
        check_path(text, HostileWheel)
    except HostileWheel:
        return
    assert text
    assert not text.startswith("/")
    parts = text.split("/")
    assert all(part not in ("", ".", "..") for part in parts)
    assert "\\" not in text
    assert "\0" not in text


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "c:", "\\", "x y", "é"]), min_size=1, max_size=5))
def test_paths_of_parts(parts: list[str]) -> None:
    bad = any(part in ("..", ".", "", "\\") for part in parts) or parts[0] == "c:"
    try:
        check_path("/".join(parts), HostileWheel)
    except HostileWheel:
        assert bad
    else:
        assert not bad


@given(st.text(max_size=20))
def test_collision_keys_fold_case(text: str) -> None:
    assert collision_key(text) == collision_key(collision_key(text))
    if text.isascii():
        assert collision_key(text) == collision_key(text.upper())
