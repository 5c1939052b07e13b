from __future__ import annotations

import pytest

from flowkiln.flow.current import Current, current, user_name


def test_outside_of_a_step() -> None:
    assert not current.is_running_flow
    assert (current.flow_name, current.run_id, current.retry_count, current.tags) == (None, None, 0, frozenset())
    assert "flow_name" not in current
    assert current.get("nothing", 3) == 3
    with pytest.raises(AttributeError, match="current has no 'nothing'"):
        _ = current.nothing
    with pytest.raises(RuntimeError, match="inside a step only"):
        _ = current.graph


def test_inside_of_a_step() -> None:
    one = Current()
    one.enter({"flow_name": "F", "task_id": "3"}, lambda: {"steps": {}})
    assert (one.is_running_flow, one.flow_name, one.graph) == (True, "F", {"steps": {}})
    assert "task_id" in one
    one.leave()
    assert (one.is_running_flow, one.flow_name) == (False, None)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"USER": "ann"}, "ann"),
        ({"USER": "root", "SUDO_USER": "bob"}, "bob"),
        ({"USER": "ann", "FLOWKILN_USER": "ci"}, "ci"),
        ({"USER": "root"}, None),
        ({}, None),
    ],
)
def test_the_user(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str | None) -> None:
    for name in ("FLOWKILN_USER", "SUDO_USER", "USERNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_name() == expected
