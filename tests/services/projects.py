"""Source distributions whose back end is in them: it builds a real wheel, and first does what a test wants."""

from __future__ import annotations

import gzip
import io
import tarfile
import textwrap
from typing import TYPE_CHECKING

from tests.services.wheels import Distribution, escape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BACKEND = """
import os, zipfile

NAME, VERSION, TAG = {name!r}, {version!r}, {tag!r}
REQUIRES, MODULE = {requires!r}, {module!r}

{extra}

def build_wheel(folder, config_settings=None, metadata_directory=None):
{before}
    file = f"{{NAME}}-{{VERSION}}-{{TAG}}.whl"
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {{NAME}}", f"Version: {{VERSION}}"]
    lines += [f"Requires-Dist: {{one}}" for one in REQUIRES]
    members = {{f"{{NAME}}.py": MODULE, f"{{info}}/METADATA": "\\n".join(lines) + "\\n"}}
    members[f"{{info}}/WHEEL"] = f"Wheel-Version: 1.0\\nGenerator: own\\nRoot-Is-Purelib: true\\nTag: {{TAG}}\\n"
    import base64, hashlib
    rows = []
    for path, text in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{{path}},sha256={{digest}},{{len(text.encode())}}")
    members[f"{{info}}/RECORD"] = "\\n".join([*rows, f"{{info}}/RECORD,,"]) + "\\n"
    with zipfile.ZipFile(os.path.join(folder, file), "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in members.items():
            archive.writestr(path, text)
    return file
"""


def project(
    name: str,
    version: str = "1.0",
    *,
    module: str = "",
    requires: Sequence[str] = (),
    build_requires: Sequence[str] = (),
    before: str = "",
    extra: str = "",
    tag: str = "py3-none-any",
) -> dict[str, str]:
    """The files of a project. ``before`` runs at the start of its build, ``extra`` when its back end is loaded."""
    backend = BACKEND.format(
        name=escape(name),
        version=version,
        tag=tag,
        requires=list(requires),
        module=module or f"VERSION = {version!r}\n",
        before=textwrap.indent(before or "pass", "    "),
        extra=extra,
    )
    system = f'[build-system]\nrequires = {list(build_requires)!r}\nbuild-backend = "own"\nbackend-path = ["."]\n'
    meta = f'[project]\nname = "{name}"\nversion = "{version}"\ndependencies = {list(requires)!r}\n'
    return {"pyproject.toml": system + meta, "own.py": backend}


def source(name: str, version: str = "1.0", files: Mapping[str, str] | None = None) -> Distribution:
    """The source distribution of ``files``, those of ``project(name, version)`` by default."""
    folder = f"{escape(name).lower()}-{version}"
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, text in (files or project(name, version)).items():
            entry = tarfile.TarInfo(f"{folder}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return Distribution(name, version, f"{folder}.tar.gz", raw.getvalue(), b"", None)
