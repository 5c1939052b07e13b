"""``flowkiln``: the nouns and their verbs."""

from __future__ import annotations

import sys

WINDOWS = "flowkiln runs on Linux and macOS; on Windows use WSL 2: https://learn.microsoft.com/windows/wsl/install"


def main(arguments: list[str] | None = None) -> None:
    """The ``flowkiln`` program; ends the process with the command's exit code."""
    if sys.platform == "win32":
        sys.stderr.write(f"error[SYS004] {WINDOWS}\n")
        sys.exit(2)
    from flowkiln.cli.problems import execute
    from flowkiln.cli.root import root

    sys.exit(execute(root, sys.argv[1:] if arguments is None else arguments, program="flowkiln"))


if __name__ == "__main__":
    main()
