"""Small declaring files, and commands given in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flowkiln.cli import problems
from flowkiln.cli.root import root

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.services.index import PackageIndex

FLOW = """
from flowkiln import FlowSpec, pypi, step

class Small(FlowSpec):
    {decorator}
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Small()
"""


def project(folder: Path, index: PackageIndex, more: str = "") -> None:
    text = f'[tool.flowkiln]\nindexes = ["{index.url}"]\n{more}'
    (folder / "pyproject.toml").write_text(text)


def flow(folder: Path, packages: str | None) -> Path:
    path = folder / "flow.py"
    path.write_text(FLOW.format(decorator=f"@pypi(python='3.11', packages={packages})" if packages else ""))
    return path


def run(*words: object) -> int:
    return problems.execute(root, [str(word) for word in words], program="flowkiln")


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    capsys.readouterr()
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)
