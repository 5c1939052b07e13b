"""``python -m tests.services``: tries each service that the tests use and says what it is and who starts it."""

from __future__ import annotations

import shutil
import sys
import tempfile
import urllib.request

from tests.services.index import PackageIndex
from tests.services.wheels import wheel


def main() -> int:
    """Prints a line for each service; 1 when one that the tests need does not work here."""
    problems = 0
    with PackageIndex() as index:
        index.add(wheel("demo"))
        with urllib.request.urlopen(index.url + "demo/") as page:
            works = b"demo-1.0-py3-none-any.whl" in page.read()
    problems += report("package index", works, "started by the tests themselves on a free port")
    problems += report(
        "uv", shutil.which("uv", path=f"{sys.prefix}/bin") is not None, "in the development environment"
    )
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free >> 20
    problems += report("scratch space", free > 2000, f"{free} MiB free; the tests want 2000")
    others = [name for minor in range(11, 16) if (name := f"python3.{minor}") and shutil.which(name)]
    print(f"  {'interpreters':<16} {', '.join(others) or 'only this one'} (one from 3.11 to 3.15 is enough)")
    return 1 if problems else 0


def report(name: str, works: bool, note: str) -> int:
    """Prints one line; the number of problems in it."""
    print(f"  {name:<16} {'ok' if works else 'MISSING'} ({note})")
    return 0 if works else 1


if __name__ == "__main__":
    sys.exit(main())
