"""The documents tell the truth: their transcripts run, their links lead somewhere, generated pages are fresh."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from flowkiln import FlowSpec
from flowkiln.cli.flow import VERBS, FlowGroup, FlowSession
from flowkiln.cli.output import Session
from flowkiln.cli.root import root
from tests.services import unavailable
from tests.services.home import MACHINE
from tests.source import ROOT, tracked
from tests.transcripts import Command, blocks, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.home import Home

TEXTS = [path for path in tracked() if path.suffix == ".md" and "changelog.d" not in path.parts]
WITH_TRANSCRIPTS = [path for path in TEXTS if any(isinstance(b, Command) for b in blocks(path.read_text("utf-8")))]
INDEX = {
    name: value for name, value in MACHINE.items() if name in {"PIP_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_CERT"}
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_TRANSCRIPTS, ids=name_of)
def test_transcripts_are_what_the_commands_print(path: Path, home: Home, wheelhouse: Path) -> None:
    if "-m venv" in path.read_text(encoding="utf-8") and importlib.util.find_spec("ensurepip") is None:
        unavailable("this Python makes no virtual environments with pip (Debian: apt-get install python3-venv)")
    environ = home.environ(
        **INDEX,
        PATH=os.pathsep.join([str(home.work / ".venv/bin"), MACHINE["PATH"]]),
        PIP_DISABLE_PIP_VERSION_CHECK="1",
        COLUMNS="116",
    )
    chosen = {"PIP_CONSTRAINT": str(wheelhouse / "constraints.txt")}
    differences = run(path.read_text(encoding="utf-8"), home.work, environ, installing=chosen)
    assert not differences, "\n\n".join(differences)


@pytest.fixture(scope="module")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of the tree as it is, and constraints that make pip choose it."""
    out = tmp_path_factory.mktemp("wheelhouse")
    command = ["uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable]
    subprocess.run([*command, "--out-dir", str(out)], cwd=ROOT, check=True)
    (wheel,) = out.glob("*.whl")
    (out / "constraints.txt").write_text(f"flowkiln @ {wheel.as_uri()}\n", encoding="utf-8")
    return out


SHELL = [
    pytest.param(line, id=f"{name_of(path)}: {line}")
    for path in TEXTS
    for block in re.findall(r"^```sh\n(.*?)^```$", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if re.match(r"(?:flowkiln|python \S*flow\.py) ", line)
]


@pytest.mark.parametrize("line", SHELL)
def test_commands_that_are_not_run_are_spelt_right(line: str) -> None:
    """Verb, options and number of arguments are those that the program takes; a wrong one is an error here."""
    program, *words = shlex.split(line, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    speaker = Session()
    command: click.Command = root
    if program == "python":
        speaker.flow = FlowSession(FlowSpec)
        command, words = FlowGroup(VERBS), words[1:]
    context = command.make_context(program, words, obj=speaker)
    while isinstance(command, click.Group):
        words = [*context._protected_args, *context.args]
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command = found
        context = command.make_context(command.name, words, parent=context)


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text)
    missing = [one for one in targets if "://" not in one and not (path.parent / one).exists()]
    assert not missing


def test_generated_pages_are_fresh() -> None:
    command = [sys.executable, "-m", "tools.docs", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_says_how_to_install_and_run() -> None:
    commands = [one.line for one in blocks((ROOT / "README.md").read_text("utf-8")) if isinstance(one, Command)]
    assert any("pip install flowkiln" in line for line in commands)
    assert any(line.endswith("run") or " run " in line for line in commands)


def test_every_page_can_be_reached_from_the_table_of_contents() -> None:
    docs = ROOT / "docs"
    contents = (docs / "README.md").read_text(encoding="utf-8")
    decisions = (docs / "decisions" / "README.md").read_text(encoding="utf-8").replace("](", "](decisions/")
    pages = [path.relative_to(docs).as_posix() for path in TEXTS if docs in path.parents]
    unlisted = [page for page in pages if page != "README.md" and f"({page})" not in contents + decisions]
    assert not unlisted


@pytest.mark.parametrize("path", [path for path in TEXTS if path.name == "architecture.md"], ids=name_of)
def test_modules_that_a_text_names_exist(path: Path) -> None:
    named = re.findall(r"`([a-z_]+/[a-z_]+\.py)`", path.read_text(encoding="utf-8"))
    assert named
    assert not [one for one in named if not (ROOT / "src/flowkiln" / one).exists() and not (ROOT / one).exists()]
