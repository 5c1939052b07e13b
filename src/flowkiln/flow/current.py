"""``current``: what a step may ask about itself and its run."""

from __future__ import annotations

import os
from typing import Any

_ALWAYS: dict[str, Any] = {
    "flow_name": None,
    "run_id": None,
    "step_name": None,
    "task_id": None,
    "retry_count": 0,
    "origin_run_id": None,
    "pathspec": None,
    "namespace": None,
    "username": None,
    "tags": frozenset(),
    "parameter_names": [],
}


def user_name() -> str | None:
    """Who runs this: ``FLOWKILN_USER``, else the login name in the environment, None for ``root`` or unknown."""
    for variable in ("FLOWKILN_USER", "SUDO_USER", "USERNAME", "USER"):
        name = os.environ.get(variable)
        if name and name != "root":
            return name
    return None


class Current:
    """The singleton ``current``. Outside a step ``is_running_flow`` is False and the rest None or empty."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._graph: Any = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        if name in _ALWAYS:
            return _ALWAYS[name]
        message = f"current has no {name!r}"
        raise AttributeError(message)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def get(self, name: str, default: Any = None) -> Any:
        """The value called ``name``, or ``default`` when there is none."""
        return getattr(self, name, default)

    @property
    def is_running_flow(self) -> bool:
        """Whether this code runs inside a step."""
        return bool(self._values)

    @property
    def tempdir(self) -> str:
        """A folder for temporary files."""
        import tempfile  # noqa: PLC0415  only where it is used

        return tempfile.gettempdir()

    @property
    def graph(self) -> dict[str, Any]:
        """The flow's graph: steps with types, lines and what follows. Raises ``RuntimeError`` outside a step."""
        if self._graph is None:
            message = "current.graph is known inside a step only"
            raise RuntimeError(message)
        described: dict[str, Any] = self._graph()
        return described

    def enter(self, values: dict[str, Any], graph: Any) -> None:
        """Begins a task: ``values`` are its facts, ``graph()`` describes the flow."""
        self._values, self._graph = dict(values), graph

    def leave(self) -> None:
        """Ends the task."""
        self._values, self._graph = {}, None


current = Current()
