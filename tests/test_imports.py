"""Who may import what: the direction between the parts, and the one place of each third-party package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.source import PACKAGE, ROOT, imported_roots, modules, relative, tree

if TYPE_CHECKING:
    from pathlib import Path

PLACES = {
    "click": ("cli/",),
    "rich": ("cli/",),
    "urllib3": ("envs/download.py", "envs/transport.py", "images/http.py"),
    "deflate": ("images/compress.py",),
    "zstandard": ("envs/condaarchive.py", "images/compress.py", "images/decompress.py"),
    "installer": ("envs/glue.py", "envs/unpack.py"),
    "packaging": ("envs/",),
    "yaml": ("envs/yamltext.py",),
    "uv": ("envs/uv.py",),
    "rattler": ("envs/condasolve.py",),
    "numpy": ("store/arrays.py",),  # the user's, imported only where an array is loaded
}
"""Third-party packages and the modules or folders that may name them."""

HEAVY = frozenset(
    """
    argparse ast asyncio click concurrent.futures csv ctypes decimal email http importlib.metadata inspect logging
    multiprocessing packaging pdb pydoc random rich selectors shutil socket sqlite3 ssl subprocess tempfile tomllib
    unittest urllib.request urllib3 uuid xml zipfile
    """.split()  # noqa: SIM905 - a list of names reads better as text
)
"""What ``import flowkiln`` must not load: a step pays for it in every process."""


def python(code: str) -> str:
    """Output of ``code`` in an interpreter that has the standard library and the source tree, nothing else."""
    start = f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); "
    command = [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", start + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_run_one_way() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"]
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", modules(), ids=relative)
def test_third_party_packages_are_named_in_their_place_only(path: Path) -> None:
    name = relative(path)
    outside = imported_roots(tree(path)) - sys.stdlib_module_names - {"flowkiln"}
    wrong = [one for one in outside if not name.startswith(PLACES.get(one, ()))]
    assert not wrong, f"{name} imports {wrong}; allowed: {PLACES}"


def test_import_flowkiln_loads_nothing_heavy() -> None:
    loaded = set(
        json.loads(
            python(
                "import json; before = set(sys.modules); import flowkiln; "
                "print(json.dumps(sorted(set(sys.modules) - before)))"
            )
        )
    )
    assert not loaded & HEAVY


def test_flow_api_needs_the_standard_library_only() -> None:
    names = json.loads(python("import json, flowkiln; print(json.dumps(sorted(flowkiln.__all__)))"))
    loaded = python(f"import flowkiln; print([getattr(flowkiln, name) is not None for name in {names!r}])")
    assert "False" not in loaded


def test_public_names_are_listed_and_exist() -> None:
    listed = json.loads(
        python("import json, flowkiln; print(json.dumps([sorted(flowkiln.__all__), dir(flowkiln)]))")
    )
    assert set(listed[0]) <= set(listed[1])


def test_root_links_are_never_imported() -> None:
    forbidden = {"envs", "executor", "images", "store", "flow", "cli"}
    wrong = [relative(path) for path in modules() if imported_roots(tree(path)) & forbidden]
    assert not wrong


def test_a_bake_that_finds_its_image_loads_no_client() -> None:
    """Its record answers for the registry: what speaks to one would be half of the command's time."""
    code = "import flowkiln.cli.baking, flowkiln.images.bake, flowkiln.images.pushing, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"urllib3", "http", "ssl", "installer", "rich"} & set(done.stdout.split())
