"""Makes ``.venv`` with the environment that ``uv.lock`` pins, using the standard library alone.

Order of work: an empty virtual environment, pip's wheel from the package index (pinned below), uv of the version
and hashes that ``uv.lock`` pins, then everything else by uv. Downloads are verified against those hashes, so the
index may be a mirror (``PIP_INDEX_URL``). Own certificates: ``SSL_CERT_FILE``, else ``PIP_CERT``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import venv
from base64 import b64encode
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "bootstrapped"
PIP = ("26.3", "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13")
"""Version of pip and sha256 of its wheel: it only installs uv."""


def main() -> int:
    """Does what is needed; 0 when the environment is in place."""
    wanted = state()
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted and (VENV / "bin/python").exists():
        return 0
    index = os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"
    environ = child_environ()
    try:
        STAMP.unlink(missing_ok=True)
        make_venv()
        uv = install_uv(index, environ)
        sync(uv, index, environ)
    except subprocess.CalledProcessError as error:
        return failed(f"{Path(str(error.cmd[0])).name} ended with exit code {error.returncode}")
    except (OSError, ValueError) as error:
        return failed(str(error))
    STAMP.write_text(wanted, encoding="utf-8")
    print(f"bootstrap: {VENV} is ready (Python {sys.version.split()[0]})")
    return 0


def failed(reason: str) -> int:
    """Says what went wrong and what to look at; the exit code."""
    print(f"bootstrap: {without_credentials(reason)}", file=sys.stderr)
    print("  The same command continues where it stopped. Behind a mirror set PIP_INDEX_URL,", file=sys.stderr)
    print("  behind a proxy HTTPS_PROXY, with an own certificate authority SSL_CERT_FILE.", file=sys.stderr)
    return 1


def state() -> str:
    """What the environment depends on: the interpreter, the lock, the project file and this script."""
    digest = hashlib.sha256()
    for name in ("uv.lock", "pyproject.toml", "tools/bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return f"{sys.version}\n{sys.base_prefix}\n{digest.hexdigest()}\n"


def child_environ() -> dict[str, str]:
    """The environment for pip and uv: the user's, without what would redirect their work elsewhere."""
    redirects = ("VIRTUAL_ENV", "UV_", "PIP_", "PYTHON", "CONDA_")
    kept = ("UV_CACHE_DIR", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_HTTP_TIMEOUT", "PIP_CERT", "PIP_CACHE_DIR")
    environ = {k: v for k, v in os.environ.items() if k in kept or not k.startswith(redirects)}
    certificates = environ.get("SSL_CERT_FILE") or environ.get("PIP_CERT")
    if certificates:
        environ["SSL_CERT_FILE"] = environ["PIP_CERT"] = certificates
    return environ


def make_venv() -> None:
    """An empty environment of this interpreter in place of a missing or foreign one."""
    python = VENV / "bin/python"
    if python.exists():
        asked = [str(python), "-I", "-c", "import sys; print(sys.version); print(sys.base_prefix)"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.stdout == f"{sys.version}\n{sys.base_prefix}\n":
            return
    if VENV.exists() or VENV.is_symlink():
        print(f"bootstrap: replacing {VENV}, made by another Python")
        VENV.unlink() if VENV.is_symlink() else shutil.rmtree(VENV)
    venv.EnvBuilder(symlinks=True, with_pip=False).create(VENV)


def install_uv(index: str, environ: dict[str, str]) -> Path:
    """The uv that ``uv.lock`` pins, installed into the environment if it isn't there; its path."""
    uv = VENV / "bin/uv"
    version, hashes = locked("uv")
    if uv.exists():
        answer = subprocess.run([str(uv), "--version"], capture_output=True, text=True, check=False)
        if answer.stdout.split()[1:2] == [version]:
            return uv
    with tempfile.TemporaryDirectory() as scratch:
        pip = fetch_pip(index, Path(scratch))
        requirements = Path(scratch) / "uv.txt"
        pins = "".join(f" --hash={one}" for one in hashes)
        requirements.write_text(f"uv=={version}{pins}\n", encoding="utf-8")
        command = [str(VENV / "bin/python"), f"{pip}/pip", "install", "--quiet", "--no-input", "--no-deps"]
        command += ["--disable-pip-version-check", "--require-hashes", "--only-binary=:all:", "--index-url", index]
        subprocess.run([*command, "-r", str(requirements)], env=environ, check=True)
    return uv


def locked(name: str) -> tuple[str, list[str]]:
    """Version and wheel hashes of a package in ``uv.lock``."""
    with (ROOT / "uv.lock").open("rb") as file:
        package = next(p for p in tomllib.load(file)["package"] if p["name"] == name)
    return package["version"], [wheel["hash"] for wheel in package["wheels"]]


def fetch_pip(index: str, folder: Path) -> Path:
    """pip's wheel of the pinned version from ``index``, its hash checked."""
    version, sha256 = PIP
    filename = f"pip-{version}-py3-none-any.whl"
    page_url = index.rstrip("/") + "/pip/"
    final, page = get(page_url)
    match = re.search(rf'href="([^"#]*{re.escape(filename)})[#"]', page.decode())
    if match is None:
        raise ValueError(f"{page_url} lists no {filename}")
    _, data = get(urllib.parse.urljoin(final, match[1].replace("&amp;", "&")))
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{filename} from {index} has a wrong hash")
    path = folder / filename
    path.write_bytes(data)
    return path


def get(url: str) -> tuple[str, bytes]:
    """Final URL and body of ``url``; credentials inside the URL are sent as Basic authorization."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers={"Accept": "text/html"})
    if parts.username:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + b64encode(pair.encode()).decode())
    certificates = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
    context = ssl.create_default_context(cafile=certificates)
    try:
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            final = urllib.parse.urlsplit(response.url)
            same = final.netloc == host
            return final._replace(netloc=parts.netloc).geturl() if same else response.url, response.read()
    except urllib.error.URLError as error:
        raise ValueError(f"{url}: {error}") from error


def sync(uv: Path, index: str, environ: dict[str, str]) -> None:
    """Installs exactly what is locked, from ``index``, and flowkiln itself as an editable install."""
    environ = {**environ, "VIRTUAL_ENV": str(VENV), "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    with tempfile.TemporaryDirectory() as scratch:
        requirements = str(Path(scratch) / "locked.txt")
        export = [str(uv), "export", "--frozen", "--quiet", "--no-emit-project", "--output-file", requirements]
        subprocess.run(export, cwd=ROOT, env=environ, check=True, stdout=subprocess.DEVNULL)
        install = [str(uv), "pip", "sync", "--quiet", "--require-hashes", "--index-url", index, requirements]
        subprocess.run(install, cwd=ROOT, env=environ, check=True)
    own = [str(uv), "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
    subprocess.run(own, cwd=ROOT, env=environ, check=True)


def without_credentials(text: str) -> str:
    """``text`` with the user part of every URL hidden."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


if __name__ == "__main__":
    sys.exit(main())
