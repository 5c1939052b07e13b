"""Machines that this one is not: what Python, uv and conda's tools look at says macOS, arm64, or a GPU.

``Host.make`` writes a folder with a ``sitecustomize.py``, a uv that is given another interpreter, and programs that
tell that they were asked; ``Host.variables`` make a process believe to be there.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MARKERS = {
    "darwin": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_release": "23.4.0"},
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "platform_release": "6.1.0"},
}
_SITE = """
import json, os, platform, sys, types

told = json.loads(os.environ["TESTS_HOST"])
system, machine = told["system"], told["machine"]
release = told["markers"]["platform_release"]
uname = os.uname_result((told["markers"]["platform_system"], "elsewhere", release, "tests", machine))
os.uname = lambda: uname
platform.uname.cache_clear() if hasattr(platform.uname, "cache_clear") else None
platform.machine, platform.processor = lambda: machine, lambda: machine
platform.system, platform.release = lambda: uname.sysname, lambda: release
if system == "darwin":
    import ctypes, subprocess  # whose own code for macOS needs its C libraries
    mac = types.ModuleType("_scproxy")
    mac._get_proxy_settings, mac._get_proxies = dict, dict
    sys.modules["_scproxy"] = mac
    platform.mac_ver = lambda *_: ("14.4", ("", "", ""), machine)
    platform.libc_ver = lambda *_, **__: ("", "")
    sys.platform = "darwin"

    def confstr(name):
        raise ValueError("unrecognized configuration name")

    os.confstr = confstr
else:
    platform.libc_ver = lambda *_, **__: ("glibc", "2.99")
    os.confstr = lambda name: "glibc 2.99"
"""
_PYTHON = """#!{python}
import json, subprocess, sys
told = json.loads({host!r})
done = subprocess.run([{python!r}, *sys.argv[1:]], capture_output=True, text=True)
try:
    answer = json.loads(done.stdout)
except ValueError:
    answer = {{}}
if "markers" in answer:
    answer["markers"].update(told["markers"], platform_machine=told["machine"])
    answer["platform" if isinstance(answer.get("platform"), dict) else "os"] = told["uv"]
    answer["arch"] = told["machine"].replace("arm64", "aarch64")
    done.stdout = json.dumps(answer)
    with open({asked!r}, "a") as file:
        file.write("uv " + answer["arch"] + "\\n")
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""
_UV = """#!{python}
import os, sys
words = sys.argv[1:]
if "--python" in words:
    words[words.index("--python") + 1] = {interpreter!r}
os.execv({uv!r}, [{uv!r}, *words])
"""
_SMI = """#!/bin/sh
echo "nvidia-smi" >> {asked}
echo "NVIDIA-SMI 570.86.15    Driver Version: 570.86.15    CUDA Version: 12.8"
"""


@dataclass(frozen=True)
class Host:
    """``Host("darwin", "arm64")`` or ``Host("linux", "aarch64", gpu=True)``, in the words of that system."""

    system: str
    machine: str
    gpu: bool = False

    def __str__(self) -> str:
        return f"{self.system}-{self.machine}{'-gpu' if self.gpu else ''}"

    @property
    def platform(self) -> str:
        """In flowkiln's words."""
        return f"{self.system}/{'amd64' if self.machine == 'x86_64' else 'arm64'}"

    def make(self, folder: Path, uv: Path) -> dict[str, str]:
        """Variables with which a process believes to be there; ``PATH`` and ``PYTHONPATH`` go before others."""
        folder.mkdir(parents=True)
        told = {"system": self.system, "machine": self.machine, "markers": _MARKERS[self.system]}
        version = {"name": "macos", "major": 14, "minor": 4}
        told["uv"] = version if self.system == "darwin" else {"name": "manylinux", "major": 2, "minor": 99}
        filled = {"python": sys.executable, "asked": str(asked_in(folder)), "host": json.dumps(told)}
        (folder / "sitecustomize.py").write_text(_SITE)
        python = _program(folder / "python-there", _PYTHON.format(**filled))
        program = _program(folder / "uv", _UV.format(**filled, uv=str(uv), interpreter=str(python)))
        given = {"TESTS_HOST": json.dumps(told), "PYTHONPATH": str(folder), "FLOWKILN_UV": str(program)}
        given["CONDA_SUBDIR"] = {"darwin-arm64": "osx-arm64", "darwin-x86_64": "osx-64"}.get(
            f"{self.system}-{self.machine}", "linux-64"
        )
        if self.system == "darwin":
            given["CONDA_OVERRIDE_OSX"] = "14.4"
        if self.gpu:
            (folder / "bin").mkdir()
            _program(folder / "bin" / "nvidia-smi", _SMI.format(**filled))
            given |= {"CONDA_OVERRIDE_CUDA": "12.8", "NVIDIA_VISIBLE_DEVICES": "all", "CUDA_VISIBLE_DEVICES": "0"}
        given["PATH"] = str(folder / "bin")
        return given | {"CONDA_OVERRIDE_GLIBC": "2.99", "CONDA_OVERRIDE_ARCHSPEC": "zen4", "CUDA_VERSION": "12.8.0"}


def asked_in(folder: Path) -> Path:
    """The file with a line for each time that the machine in ``folder`` was looked at."""
    return folder / "asked"


def joined(given: dict[str, str], environ: dict[str, str]) -> dict[str, str]:
    """``environ`` with ``given`` over it, paths in front."""
    paths = {
        name: os.pathsep.join(filter(None, [given[name], environ.get(name)])) for name in ("PATH", "PYTHONPATH")
    }
    return {**environ, **given, **paths}


def _program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
