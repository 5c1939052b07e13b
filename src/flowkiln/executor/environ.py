"""The environment variables of a step's process: an allow-list for locked environments, everything otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flowkiln.executor.plan import Prefix

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_PASSED = {
    *("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM"),
    *_PROXIES,
    *(name.upper() for name in _PROXIES),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
OWN = ("PYTHONPATH", "PYTHONHASHSEED", "PYTHONUNBUFFERED", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX")
"""Variables that flowkiln itself needs as it sets them."""
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def cores() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def variables(
    prefix: Prefix,
    *,
    host: Mapping[str, str],
    runtime: Path,
    cache: Path,
    threads: int,
    step: Iterable[tuple[str, str]] = (),
    passed: Iterable[str] = (),
) -> dict[str, str]:
    """All variables of a process that runs steps in ``prefix``.

    ``host`` is the launcher's environment, ``step`` what ``@environment`` says (it wins), ``passed`` names more
    variables of the host that a locked environment sees. ``threads`` is the default size of numeric libraries'
    thread pools, ``runtime`` the folder that holds flowkiln alone. Equal hash seeds make equal values equal bytes.
    """
    found = _locked(prefix, host, cache, {*passed}) if prefix.managed else dict(host)
    for name in THREAD_VARIABLES:
        if name not in found:
            found[name] = host.get(name, str(max(1, threads)))
    found.update(step)
    own = found.get("PYTHONPATH") if not prefix.managed else dict(step).get("PYTHONPATH")
    found["PYTHONPATH"] = f"{runtime}{os.pathsep}{own}" if own else str(runtime)
    found["PYTHONHASHSEED"] = "0"
    found["PYTHONUNBUFFERED"] = "1"
    return found


def _locked(prefix: Prefix, host: Mapping[str, str], cache: Path, passed: set[str]) -> dict[str, str]:
    found = {
        name: value for name, value in host.items() if name in _PASSED or name.startswith("LC_") or name in passed
    }
    root = Path(prefix.root) if prefix.root else Path(prefix.python).parent.parent
    found["PATH"] = os.pathsep.join([str(root / "bin"), *_outer_path(host)])
    found["PYTHONNOUSERSITE"] = "1"
    # The tree is verified and shared: bytecode goes beside it. Its path holds its identity, and so does this one.
    found["PYTHONPYCACHEPREFIX"] = str(cache / "pyc")
    return found


def _outer_path(host: Mapping[str, str]) -> list[str]:
    """The host's program folders without those of the Python environment that the launcher runs in."""
    inner = {str(Path(folder) / "bin") for folder in (host.get("VIRTUAL_ENV"), host.get("CONDA_PREFIX")) if folder}
    if sys.prefix != sys.base_prefix:
        inner.add(str(Path(sys.prefix) / "bin"))
    folders = host.get("PATH", _SYSTEM_PATH).split(os.pathsep)
    return [folder for folder in folders if folder and folder.rstrip("/") not in inner]
