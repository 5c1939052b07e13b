"""The conda-lock command reads, renders and installs what flowkiln writes and exports."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowkiln.envs import condalock, exporting, givencondalock
from tests.envs import condalocks
from tests.envs.condalocks import AMD64, ARM64, package
from tests.envs.test_lockfolder import a_wheel
from tests.services import condalock as judge

MIXED = condalocks.lock("fit", a_wheel("beta"), a_wheel("alpha", requires=("beta",)))
BARE: dict[str, Any] = {"size": None, "index": None, "upload_time": None}
PLAIN = condalocks.lock("fit", a_wheel("alpha", requires=("beta",), **BARE), a_wheel("beta", **BARE))
ODD = package(
    "yes",
    "1e3",
    "null",
    depends=("python", "__cuda >=12", "no", 'x[version=">=1", build="*_0"]', "python <4", "x  >2"),
    provides=(("a", "1"),),
)
READ = """
import json, pathlib, sys
from conda_lock.lockfile import parse_conda_lock_file
lock = parse_conda_lock_file(pathlib.Path(sys.argv[1]))
print(json.dumps([
    [p.manager, p.platform, p.name, p.version, p.build, p.url, p.hash.md5, p.hash.sha256, p.dependencies]
    for p in lock.package
]))
"""
WRITTEN = """
import pathlib, sys
from conda_lock.lockfile import parse_conda_lock_file, write_conda_lock_file
write_conda_lock_file(parse_conda_lock_file(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), None)
"""
STAND_IN = """#!/bin/sh
# answers as conda would, and keeps what it was asked to install
case "$*" in
*--version*) echo "conda 24.9.0" ;;
*create*)
    for word in "$@"; do [ "$last" = --file ] && cp "$word" "$STAND_IN_KEEPS/installed.txt"; last=$word; done ;;
*"pip install"*)
    for word in "$@"; do [ "$last" = -r ] && cp "$word" "$STAND_IN_KEEPS/wheels.txt"; last=$word; done ;;
esac
"""


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lock", "export"])
def test_conda_lock_reads_every_field(tmp_path: Path, form: str) -> None:
    parts = tuple(replace(one, conda=(*one.conda, ODD)) for one in MIXED.platforms)
    lock = replace(MIXED, platforms=parts)
    path = tmp_path / "conda-lock.yml"
    path.write_text(condalock.serialise(lock) if form == "lock" else exporting.conda_lock(lock))
    command = [str(judge.python()), "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [tuple(row[:8]) for row in json.loads(done.stdout)]
    places = {AMD64: "linux-64", ARM64: "linux-aarch64"}
    expected: list[tuple[str | None, ...]] = [
        ("conda", places[one.platform], c.name, c.version, c.build, c.url, c.md5, c.sha256)
        for one in parts
        for c in one.conda
    ]
    if form == "export":
        expected += [
            ("pip", places[one.platform], w.name, w.version, None, w.url, None, w.sha256)
            for one in parts
            for w in one.wheels
        ]
    assert sorted(found, key=str) == sorted(expected, key=str)


@pytest.mark.slow
def test_what_conda_lock_writes_is_a_source(tmp_path: Path) -> None:
    parts = tuple(
        replace(one, conda=tuple(sorted((*one.conda, ODD), key=lambda c: c.name))) for one in PLAIN.platforms
    )
    lock = replace(PLAIN, platforms=parts)
    ours, theirs = tmp_path / "ours.yml", tmp_path / "theirs.yml"
    ours.write_text(exporting.conda_lock(lock))
    command = [str(judge.python()), "-c", WRITTEN, str(ours), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given = givencondalock.read(theirs.read_text(), theirs, (AMD64, ARM64), glibc=(2, 28))
    virtual = {one.platform: one.virtual for one in parts}
    assert given.lock("fit", lock.spec_id, steps=lock.steps, virtual=virtual) == lock


@pytest.mark.slow
@pytest.mark.parametrize("subdir", ["linux-64", "linux-aarch64"])
def test_conda_lock_renders_what_we_export(tmp_path: Path, subdir: str) -> None:
    (tmp_path / "fit.conda-lock.yml").write_text(exporting.conda_lock(MIXED))
    judge.run("render", "--kind", "explicit", "--platform", subdir, "fit.conda-lock.yml", folder=tmp_path)
    part = MIXED.platforms[subdir != "linux-64"]
    ours, theirs = (
        [line for line in text.splitlines() if not line.startswith("#") or line.startswith("# pip")]
        for text in (exporting.explicit(part), (tmp_path / f"conda-{subdir}.lock").read_text())
    )
    assert ours[0] == theirs[0] == "@EXPLICIT"
    assert sorted(ours) == sorted(theirs)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["lock", "export"])
def test_conda_lock_installs_it(tmp_path: Path, form: str) -> None:
    stand_in = tmp_path / "conda"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    text = condalock.serialise(MIXED) if form == "lock" else exporting.conda_lock(MIXED)
    (tmp_path / "fit.conda-lock.yml").write_text(text)
    words = ("install", "--conda", stand_in, "--prefix", tmp_path / "prefix", "fit.conda-lock.yml")
    judge.run(*words, folder=tmp_path, STAND_IN_KEEPS=str(tmp_path))
    installed = (tmp_path / "installed.txt").read_text().splitlines()
    urls = {f"{one.url}#{one.md5}" for part in MIXED.platforms for one in part.conda}
    assert {line for line in installed if not line.startswith(("#", "@"))} <= urls
    assert len(set(installed) & urls) == 4
    assert (tmp_path / "wheels.txt").exists() == (form == "export")
    if form == "export":
        wheels = [f"{one.name} @ {one.url}#sha256={one.sha256}" for one in MIXED.platforms[0].wheels]
        assert sorted((tmp_path / "wheels.txt").read_text().split()) == sorted(" ".join(wheels).split())
