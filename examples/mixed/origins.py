"""Where the modules that a step has imported come from. Nothing but the standard library is needed for it."""

import os
import sys
from importlib import metadata


def origins():
    """A row for each distribution that is imported now: its name, who installed it, and the file of its module."""
    owners = metadata.packages_distributions()
    rows = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or file is None:
            continue
        for owner in owners.get(name, ()):
            installer = metadata.distribution(owner).read_text("INSTALLER") or "unknown"
            rows.add((owner, installer.strip(), os.path.relpath(file, sys.prefix)))
    return sorted(rows)


def show(step, rows):
    """Prints them, a line for each."""
    for name, installer, file in rows:
        print(f"{step:8} {name:16} {installer:9} {file}")
