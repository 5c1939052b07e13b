"""Habits of the project that a machine can check: budgets, changelog, files, the built wheel."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.source import PACKAGE, ROOT, modules, relative, tracked, tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE_LINES = 450
FUNCTION_LINES = 60
"""Where the check stops; CONTRIBUTING names them beside the aims."""
LONGER = {"envs/errors.py": "a class for each error, whose docstring is the page that users read"}
VAGUE = ("util", "utils", "helper", "helpers", "manager", "managers", "misc", "common")
KINDS = ("added", "changed", "fixed", "removed", "security")


def functions(module: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_module_keeps_its_budget(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MODULE_LINES or relative(path) in LONGER
    long = {one.name: body_lines(one) for one in functions(tree(path)) if body_lines(one) > FUNCTION_LINES}
    assert not long


def test_contributing_names_the_budgets_that_are_checked() -> None:
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    assert f"at {FUNCTION_LINES} and {MODULE_LINES} the check stops a change" in text


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_module_is_honest(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [node for node in ast.walk(tree(path)) if isinstance(node, ast.Global)]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"bare except in line {node.lineno}"
            broad = isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            passes_on = isinstance(node.body[-1], ast.Raise)
            reason = "".join(lines[node.lineno - 2 : node.lineno + 1])
            assert not broad or passes_on or "#" in reason, f"line {node.lineno} catches all, says not why"
    assert not path.stem.strip("_").endswith(VAGUE)


def test_tests_mirror_the_source() -> None:
    folders = {path.parent.relative_to(PACKAGE) for path in modules()}
    wanted = [folder for folder in folders if not (ROOT / "tests" / folder / "__init__.py").exists()]
    assert not wanted


def test_no_test_is_skipped_unseen() -> None:
    ways = re.compile(r"\bpytest\.(?:skip|importorskip|xfail|mark\.(?:skip|skipif|xfail))\b")
    tests = [path for path in tracked() if path.suffix == ".py" and ROOT / "tests" in path.parents]
    skipping = {
        path.relative_to(ROOT / "tests").as_posix() for path in tests if ways.search(path.read_text("utf-8"))
    }
    assert skipping - {"test_project.py"} == {"services/__init__.py"}


def test_lock_of_the_development_environment_names_public_hosts_only() -> None:
    hosts = set(re.findall(r"https?://([^/\"]+)", (ROOT / "uv.lock").read_text(encoding="utf-8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_extras_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {"batch", "kubernetes", "conda", "all"}


def test_version_is_stated_once_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = re.search(r'__version__(?:: str)? = "(.+)"', (PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert stated is not None
    assert stated[1] == project["version"]


def test_changelog_fragments_are_well_formed() -> None:
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    for path in fragments:
        assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md", path.name), path.name
        text = path.read_text(encoding="utf-8").strip()
        assert text.endswith((".", "`")), f"{path.name}: sentences"
        assert not text.startswith("#"), f"{path.name}: no heading"


@pytest.mark.parametrize("name", ["envs", "executor", "images"])
def test_root_links_point_into_the_package(name: str) -> None:
    assert (ROOT / name).is_symlink()
    assert (ROOT / name).resolve() == PACKAGE / name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of the tree as it is."""
    out = tmp_path_factory.mktemp("dist")
    command = ["uv", "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_wheel_holds_only_flowkiln(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"flowkiln", f"{path.name.split('-py3')[0]}.dist-info"}
    shipped = {name for name in names if name.endswith(".py")}
    assert shipped == {f"flowkiln/{relative(module)}" for module in modules()}
    assert "flowkiln/py.typed" in names


def test_sdist_leaves_the_root_links_out(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert not tops & {"envs", "executor", "images"}
    assert {"src", "LICENSE", "README.md"} <= tops


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "test-fast", "stack", "lint", "bench", "docs"):
        assert re.search(rf"^  make {target} ", listed, re.MULTILINE), target
