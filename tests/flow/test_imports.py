from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowkiln.flow import imports
from flowkiln.flow.imports import Import
from tests.flow.source import load

FLOW = """
import json
import pandas as pd
from typing import TYPE_CHECKING
import beside
if TYPE_CHECKING:
    import never_imported
try:
    import maybe
except ImportError:
    maybe = None
if json:
    import sometimes

def helper():
    import from_helper
    deeper()

def deeper():
    from from_deeper.part import thing

def unused():
    import from_unused

class F(FlowSpec):
    @step
    def start(self):
        import numpy as np, scipy.stats
        from sklearn.linear_model import LinearRegression
        if self.x:
            import conditional
        helper()
        self.method()
        self.next(self.end)

    def method(self):
        import from_method

    @step
    def end(self):
        import beside_package.inner
        from beside_package import named
        from . import relative
        for _ in range(2):
            import looped
"""


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    (tmp_path / "beside.py").write_text(
        "import from_beside\ndef f():\n    import inside_beside\n", encoding="utf-8"
    )
    (tmp_path / "beside_package").mkdir()
    (tmp_path / "beside_package" / "__init__.py").write_text("import from_package\n", encoding="utf-8")
    (tmp_path / "beside_package" / "inner.py").write_text(
        "import from_inner\nfrom . import more\n", encoding="utf-8"
    )
    (tmp_path / "beside_package" / "more.py").write_text(
        "import from_more\nfrom .last import x\n", encoding="utf-8"
    )
    (tmp_path / "beside_package" / "last.py").write_text("class C:\n    import from_last\n", encoding="utf-8")
    (tmp_path / "beside_package" / "named.py").write_text("import from_named\n", encoding="utf-8")
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    for name in ("pandas", "sometimes", "from_beside"):
        (stubs / f"{name}.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(stubs))
    monkeypatch.syspath_prepend(str(tmp_path))
    return load(tmp_path, FLOW)


def tops(found: tuple[Import, ...]) -> set[str]:
    return {one.top for one in found}


def test_imports_of_the_module_and_of_each_step(flow: type) -> None:
    found = imports.of_flow(flow)
    assert tops(found[None]) == {"flowkiln", "json", "pandas", "typing", "from_beside", "maybe", "sometimes"}
    assert tops(found["start"]) == {
        *("numpy", "scipy", "sklearn", "conditional", "from_helper", "from_deeper", "from_method")
    }
    assert tops(found["end"]) == {*("from_package", "from_inner", "from_more", "from_last", "from_named", "looped")}


def test_what_an_environment_lacks_is_named_with_file_and_line(flow: type, tmp_path: Path) -> None:
    found = imports.missing(imports.of_flow(flow), "start", {"pandas", "numpy", "scipy", "sklearn", "from_beside"})
    assert {one.module for one in found} == {"from_helper", "from_deeper.part", "from_method"}
    assert found[0].file.startswith(str(tmp_path))
    for one in found:
        line = Path(one.file).read_text(encoding="utf-8").splitlines()[one.line - 1]
        assert one.module in line


def test_module_level_imports_count_for_every_step(flow: type) -> None:
    provided = {"from_package", "from_inner", "from_more", "from_last", "from_named", "looped"}
    found = imports.missing(imports.of_flow(flow), "end", provided)
    assert {one.top for one in found} == {"pandas", "from_beside"}


def test_only_unconditional_imports_are_preloaded(flow: type, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def record(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", record)
    imports.preload(flow)
    expected = {"numpy", "scipy.stats", "sklearn.linear_model", "from_helper", "from_method", "from_deeper.part"}
    assert set(asked) == (expected | {"beside_package.inner", "beside_package"}) - set(sys.modules)
    assert len(asked) == len(set(asked))


def test_packages_with_threads_or_devices_are_never_preloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "\n".join(f"        import {name}" for name in sorted(imports.NEVER_PRELOADED))
    kind = load(
        tmp_path, f"class F(FlowSpec):\n    @step\n    def start(self):\n{lines}\n        import torch.nn\n"
    )
    asked: list[str] = []
    monkeypatch.setattr("importlib.import_module", asked.append)
    imports.preload(kind)
    assert asked == []
    assert {"torch", "tensorflow", "jax", "cupy", "polars", "grpc", "ray"} == imports.NEVER_PRELOADED


def test_a_failing_preload_is_left_to_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "explodes.py").write_text("raise RuntimeError('at import')\n", encoding="utf-8")
    (tmp_path / "works_well.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = load(
        tmp_path,
        "class F(FlowSpec):\n    @step\n    def start(self):\n        import explodes, not_there_at_all\n"
        "        import works_well\n",
    )
    imports.preload(kind)
    assert "works_well" in sys.modules
    monkeypatch.delitem(sys.modules, "works_well")


LIST = "import sys, json; print(json.dumps([sorted(sys.modules), list(sys.stdlib_module_names)]))"


def loaded(*statements: str) -> set[str]:
    """Top-level modules outside the standard library that a fresh interpreter has loaded after ``statements``."""
    source = str(Path(imports.__file__).parents[2])
    code = "\n".join([f"import sys; sys.path.insert(0, {source!r})", *statements, LIST])
    answer = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    modules, standard = json.loads(answer.stdout)
    return {name for name in modules if name.partition(".")[0] not in {*standard, "__main__"}}


def test_a15_what_runs_in_a_step_is_standard_library_only() -> None:
    found = loaded(
        "from flowkiln import *",
        "from flowkiln.flow import worker, imports, graph, graphinfo, transitions, joins, failures",
        "from flowkiln.executor import template, child",
    )
    assert {name.partition(".")[0] for name in found} == {"flowkiln"}
    assert not [name for name in found if name.startswith(("flowkiln.envs", "flowkiln.cli"))]


def test_importing_the_package_loads_nothing_of_the_flow_api() -> None:
    assert not [name for name in loaded("import flowkiln") if name.startswith("flowkiln.flow")]


def test_defining_a_flow_loads_neither_worker_nor_command_line() -> None:
    found = loaded("from flowkiln import FlowSpec, step, Parameter, IncludeFile, current, retry, pypi")
    assert not [name for name in found if name.startswith(("flowkiln.store", "flowkiln.cli", "flowkiln.envs"))]
    assert "flowkiln.flow.worker" not in found
    assert "flowkiln.flow.graph" not in found


EXPENSIVE = ["inspect", "ast", "subprocess", "asyncio", "dataclasses", "pathlib", "tempfile", "logging"]


@pytest.mark.parametrize("name", EXPENSIVE)
def test_expensive_modules_are_not_imported_by_the_flow_api(name: str) -> None:
    source = str(Path(imports.__file__).parents[2])
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        f"from flowkiln import FlowSpec, step, Parameter, IncludeFile, pypi\n"
        f"sys.exit({name!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0
