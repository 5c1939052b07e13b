"""``python -m tests.stack start|stop|status [NAME…]``: the services of the tests of images, from a shell."""

from __future__ import annotations

import argparse
import sys
import time

from tests.stack.daemons import running
from tests.stack.place import CannotRun, root
from tests.stack.services import DAEMONS, STARTS, start, status, stop


def main() -> int:
    """Does what was asked for each service and prints a line for it; 1 when one cannot run here."""
    parser = argparse.ArgumentParser(prog="python -m tests.stack", description=__doc__, epilog=f"Kept in {root()}.")
    parser.add_argument("verb", choices=["start", "stop", "status"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all of them by default: {', '.join(STARTS)}")
    parser.add_argument("--new", action="store_true", help="start: print only the names of what did not run before")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(STARTS)
    if unknown:
        parser.error(f"no service is called {', '.join(sorted(unknown))}; there are {', '.join(STARTS)}")
    names = [name for name in STARTS if name in (asked.names or STARTS)]
    if asked.verb == "start":
        return _start(names, only_new=asked.new)
    for name in reversed([one for one in names if one in DAEMONS]):
        if asked.verb == "status":
            print(f"  {name:<18} {status(name)}")
        else:
            print(f"  {name:<18} {'stopped' if stop(name) else 'did not run'}")
    return 0


def _start(names: list[str], *, only_new: bool) -> int:
    before = {name for name in DAEMONS if running(name) is not None}
    problems = 0
    for name in names:
        began = time.monotonic()
        try:
            line = f"ok, {start(name)} ({time.monotonic() - began:.1f} s)"
        except CannotRun as why:
            problems += 1
            line = str(why)
        print(f"  {name:<18} {line}", file=sys.stderr if only_new else sys.stdout)
    if only_new:
        print(*(name for name in DAEMONS if name not in before and running(name) is not None))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
