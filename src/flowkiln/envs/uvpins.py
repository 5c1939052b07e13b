"""The request as a project of uv, for requests whose packages are pinned to indexes: only projects can say that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flowkiln.envs.requirements import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flowkiln.envs.indexes import IndexPlan


def text(wanted: Sequence[str], roots: Iterable[str], plan: IndexPlan) -> str:
    """A pyproject.toml that asks for ``wanted`` and ``roots``, each pinned package from its index alone.

    No other package comes from that index. URLs are without credentials, which uv finds in its environment.
    """
    named = {name_of(line) for line in wanted}
    lines = [*wanted, *(name for name in sorted(roots) if name not in named)]
    parts = ["[project]", 'name = "request"', 'version = "0"', f"dependencies = {json.dumps(lines)}"]
    parts += ["[tool.uv.sources]"]
    names = plan.pin_names
    parts += [f"{json.dumps(package)} = {{index = {json.dumps(names[pin.shown])}}}" for package, pin in plan.pins]
    for url, name in names.items():
        parts += ["[[tool.uv.index]]", f'name = "{name}"', f"url = {json.dumps(url)}", "explicit = true"]
    return "\n".join(parts) + "\n"
