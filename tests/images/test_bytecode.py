"""Bytecode is a function of path, content and X.Y.Z, and Python really loads it."""

from __future__ import annotations

import importlib.util
import marshal
import os
import platform
import py_compile
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln.images import compile_files, places
from flowkiln.images.bytecode import HostCompiler, find_host, pyc_path
from flowkiln.images.compile_files import of_stdlib
from flowkiln.images.errors import CompilerFailed
from tests.source import PACKAGE

VERSION = platform.python_version()
HERE = HostCompiler(sys.executable, VERSION)
STDLIB = Path(sysconfig.get_path("stdlib"))
FINAL = "/opt/env/lib/python3/site-packages"
FILES = {
    f"{FINAL}/{path.relative_to(STDLIB).as_posix()}": path
    for folder in ("json", "email", "importlib", "concurrent")
    for path in sorted((STDLIB / folder).rglob("*.py"))
}


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    """The bytecode of all files, compiled in one call."""
    return HERE.compile(list(FILES.items()))


def pretender(folder: Path, script: str) -> HostCompiler:
    """What stands where the interpreter was: a shell script that gets its arguments."""
    path = folder / "python"
    path.write_text("#!/bin/sh\n" + script.replace("PYTHON", sys.executable))
    path.chmod(0o755)
    return HostCompiler(str(path), VERSION)


def test_every_file_of_the_libraries_compiles(whole: dict[str, bytes]) -> None:
    assert len(FILES) > 50
    assert set(whole) == set(FILES)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(sorted(FILES)), unique=True, min_size=1, max_size=12))
def test_the_files_of_a_call_do_not_move_each_other(whole: dict[str, bytes], chosen: list[str]) -> None:
    assert HERE.compile([(path, FILES[path]) for path in chosen]) == {path: whole[path] for path in chosen}


LOADED = """
import sys
from flowkiln.images import compile_files
import asyncio, decimal, http.server, sqlite3, unittest, xml.dom.minidom
files = [line.split("\\t") for line in sys.stdin.read().splitlines()]
held = []
for path, place in files:
    source = open(place, "rb").read()
    names, _ = compile_files._strings(compile(source, path, "exec", dont_inherit=True))
    held += [sys.intern(name) for name in names]
for path, place in files:
    data = compile_files.bytecode(path, open(place, "rb").read())
    sys.stdout.write(f"{path}\\t{data.hex()}\\n")
"""


def test_what_a_process_has_loaded_moves_nothing(whole: dict[str, bytes]) -> None:
    """A process that holds thousands of names which a fresh one does not, all those of the files among them."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        input="\n".join(f"{path}\t{place}" for path, place in FILES.items()),
        env={"PYTHONPATH": str(PACKAGE.parent), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert {path: bytes.fromhex(data) for path, data in found.items()} == whole


def test_the_machine_moves_nothing(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = {}
    for number, (path, file) in enumerate(FILES.items()):
        copy = tmp_path / f"{number} ä.py"
        copy.write_bytes(file.read_bytes())
        os.utime(copy, (number, number))
        elsewhere[path] = copy
    hostile = {"PYTHONHASHSEED": "77", "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "LC_ALL": "tr_TR.UTF-8"}
    hostile |= {"HOME": str(tmp_path), "TZ": "Asia/Tokyo", "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere"}
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "marshal.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    before = os.umask(0o077)
    try:
        assert HERE.compile(list(reversed(elsewhere.items()))) == whole
    finally:
        os.umask(before)


def test_the_embedded_path_is_the_final_one(whole: dict[str, bytes]) -> None:
    for path, data in whole.items():
        code = marshal.loads(data[16:])
        assert code.co_filename == path
        assert str(STDLIB).encode() not in data


def test_it_is_what_py_compile_makes(whole: dict[str, bytes], tmp_path: Path) -> None:
    for path, file in FILES.items():
        out = tmp_path / "out.pyc"
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        py_compile.compile(str(file), str(out), dfile=path, doraise=True, optimize=0, invalidation_mode=mode)
        theirs = out.read_bytes()
        assert whole[path][:16] == theirs[:16]
        assert marshal.loads(whole[path][16:]) == marshal.loads(theirs[16:])


@pytest.mark.parametrize("path", ["/opt/env/lib/a.py", "/opt/env/a.b/c.d.py", "/usr/lib/python3.11/re/__init__.py"])
def test_files_lie_where_python_looks(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", places.BYTECODE)
    tag = sys.implementation.cache_tag
    assert places.BYTECODE + pyc_path(path, tag) == importlib.util.cache_from_source(path)


def test_python_loads_it_whatever_became_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "site/box/__init__.py"
    source.parent.mkdir(parents=True)
    source.write_text("value = 1\n")
    made = HERE.compile([(str(source), source)])
    prefix = tmp_path / "pyc"
    target = Path(f"{prefix}{pyc_path(str(source), sys.implementation.cache_tag)}")
    target.parent.mkdir(parents=True)
    target.write_bytes(made[str(source)])
    source.write_text("value = 2  # and another size\n")
    os.utime(source, (0, 0))
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import box; print(box.value)"
    command = [sys.executable, "-v", "-I", "-B", "-X", f"pycache_prefix={prefix}", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
    assert f"# {target} matches {source}" in done.stderr


BAD = {
    "python2.py": b"print 'hello'\n",
    "template.py": b"import {{ module }}\n",
    "zero.py": b"x = 1\0\n",
    "encoding.py": b"# coding: no-such-encoding\n",
    "latin.py": b"name = '\xe4'\n",
    "deep.py": b"x = " + b"-" * 200_000 + b"1\n",
    "nested.py": b"(" * 500 + b")" * 500,
    "indent.py": b"if True:\n\tx = 1\n        y = 2\n",
}


def test_what_does_not_compile_is_left_out() -> None:
    good = (
        "good.py",
        textwrap.dedent("""
        # -*- coding: latin-1 -*-
        name = '\xe4' "\\d"
    """)
        .lstrip()
        .encode("latin-1"),
    )
    assert set(HERE.compile([*BAD.items(), good])) == {"good.py"}


def test_no_file_is_left_out_because_memory_ran_out(tmp_path: Path) -> None:
    starved = pretender(tmp_path, 'ulimit -v 400000; exec PYTHON "$@"')
    assert set(starved.compile([("a.py", b"x = 1\n")])) == {"a.py"}
    with pytest.raises(CompilerFailed, match="memory ran out"):
        starved.compile([("large.py", b"x = [" + b"a + b, " * 2_000_000 + b"]\n")])


def test_an_interpreter_that_was_replaced_is_refused() -> None:
    with pytest.raises(CompilerFailed, match=rf"is cpython {VERSION}, and was to be cpython 3\.11\.999"):
        HostCompiler(sys.executable, "3.11.999").compile([("a.py", b"")])


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo no library >&2; exit 127", r"exit code 127\): no library"),
        ("kill -9 $$", r"exit code -9\): it said nothing"),
        ('PYTHON "$@" | head -c 60', "broke off"),
        ("cat >/dev/null", "broke off"),
    ],
)
def test_an_interpreter_that_fails(tmp_path: Path, script: str, told: str) -> None:
    with pytest.raises(CompilerFailed, match=told):
        pretender(tmp_path, script).compile([("a.py", b"x = 1\n" * 100)])


def test_only_the_exact_version_is_found() -> None:
    candidates = [("/a", "3.11.7"), ("/b", "3.11.2"), ("/c", "3.11.2")]
    assert find_host("3.11.2", candidates) == HostCompiler("/b", "3.11.2")
    assert find_host("3.11.1", candidates) is None
    assert find_host("3.11", candidates) is None


def test_the_standard_library_without_what_steps_do_not_import() -> None:
    taken = ["os.py", "json/decoder.py", "testing.py", "unittest/case.py"]
    passed = ["test/test_os.py", "idlelib/run.py", "site-packages/pip/main.py", "x.pyc", "unittest/tests/a.py"]
    assert [path for path in [*taken, *passed] if of_stdlib(path)] == taken


def test_the_script_cleans_the_environment_of_a_container(tmp_path: Path, whole: dict[str, bytes]) -> None:
    request = b"".join(compile_files.frame(path, file.read_bytes()) for path, file in FILES.items())
    (tmp_path / "request").write_bytes(request)
    command = [sys.executable, "-I", "-S", "-B", compile_files.__file__, "request", "answer"]
    environ = {"PYTHONOPTIMIZE": "2", "PYTHONPATH": "/x", "PYTHONHOME": "/x", "PYTHONHASHSEED": "5"}
    subprocess.run(command, cwd=tmp_path, env=environ, check=True)
    (who, _), *made = compile_files.frames((tmp_path / "answer").read_bytes())
    assert who == f"cpython {VERSION}"
    assert dict(made) == whole
