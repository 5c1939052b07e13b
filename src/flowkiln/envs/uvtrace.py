"""Reads what uv's resolver tells of its work: the graph, versions it passed over, the index of each package.

``RUST_LOG`` makes uv print it on stderr while it resolves, so that one call gives the lock and its reasons.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from flowkiln.envs.spec import normal_name

LEVELS = "uv_resolver=trace,uv_client=trace"
"""Value of ``RUST_LOG`` under which uv prints the lines that are read here."""

_LEVEL = re.compile(r"^\s*(TRACE|DEBUG|INFO|WARN)\s+(?P<text>.*)$")
_EDGE = re.compile(r"Resolution edge: (?P<parent>\S+) -> (?P<child>\S+)$")
_FETCH = re.compile(r"Fetching metadata for `?(?P<name>[^`\s]+?)`? from `?(?P<url>[^`\s]+?)`?$")
_FOUND = re.compile(r"Found candidate for package (?P<name>\S+) with range .* steps: (?P<version>\S+) version")
_RANGE = re.compile(r"Selecting candidate for (?P<name>\S+) with range (?P<range>.+) with \d+ remote versions")
_PASSED = re.compile(r"Returning incompatible candidate for package (?P<name>\S+) ")
_CHOSEN = re.compile(r"Selecting: (?P<name>[^\s=]+)==(?P<version>\S+) \[[^\]]*\] \((?P<file>[^)]+)\)")
_RECEIVED = re.compile(r"Received response .* status (?P<status>\d{3})\b.* for: (?P<url>\S+)$")
_REQUEST = re.compile(r"Sending \S+ (?:GET|HEAD)?\s*request for: (?P<url>\S+)")


@dataclass(slots=True)
class Trace:
    """What was heard so far. ``feed`` takes uv's lines in order; everything else on stderr is kept as ``said``."""

    said: list[str] = field(default_factory=list)
    edges: dict[str, set[str]] = field(default_factory=dict)
    indexes: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, set[str]] = field(default_factory=dict)
    chosen: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    ranges: dict[str, str] = field(default_factory=dict)
    phase: str = "starting uv"
    item: str = ""
    _found: dict[str, str] = field(default_factory=dict)

    def feed(self, line: str) -> None:
        """Takes one line of stderr."""
        match = _LEVEL.match(line)
        if match is None:
            self.said.append(line)
            return
        text = match["text"].rstrip()
        for pattern, take in _READERS:
            found = pattern.search(text)
            if found is not None:
                take(self, found)
                return

    @property
    def warnings(self) -> list[str]:
        """uv's own warnings, such as yanked versions; that an environment asks for nothing is no news."""
        told = [line.removeprefix("warning: ") for line in self.said if line.startswith("warning: ")]
        return [line for line in told if "does not contain any dependencies" not in line]

    @property
    def failure(self) -> list[str]:
        """uv's error message with what follows it."""
        start = next((place for place, line in enumerate(self.said) if line.startswith("error:")), 0)
        return self.said[start:]

    def edge(self, match: re.Match[str]) -> None:
        """A dependency of the final graph; the root's are requirements."""
        parent, child = normal_name(match["parent"]), normal_name(match["child"])
        if parent != child:
            self.edges.setdefault("" if match["parent"] == "ROOT" else parent, set()).add(child)

    def fetch(self, match: re.Match[str]) -> None:
        """A package page was asked for; the last index asked is the one that had it."""
        name = normal_name(match["name"])
        self.phase, self.item = "reading the index", name
        self.indexes[name] = re.sub(rf"/{re.escape(match['name'])}/?$", "", match["url"])

    def range(self, match: re.Match[str]) -> None:
        """Versions were looked for in a range; the first is what everything that asks for the package allows."""
        self.ranges.setdefault(normal_name(match["name"]), match["range"])

    def found(self, match: re.Match[str]) -> None:
        """A version was considered."""
        self._found[match["name"]] = match["version"]

    def passed(self, match: re.Match[str]) -> None:
        """The version considered last does not fit the target."""
        name = match["name"]
        if name in self._found:
            self.passed_over.setdefault(normal_name(name), set()).add(self._found[name])

    def choose(self, match: re.Match[str]) -> None:
        """A version was taken, with the file whose metadata counts."""
        name = normal_name(match["name"].partition("[")[0].partition("{")[0])
        self.chosen[name, match["version"]] = match["file"]
        self.phase, self.item = "solving", name

    def received(self, match: re.Match[str]) -> None:
        """A server answered; a page that wants another login counts unless it is given after all."""
        self.refused.pop(match["url"], None)
        if match["status"] in {"401", "403"}:
            self.refused[match["url"]] = match["status"]

    def request(self, match: re.Match[str]) -> None:
        """A request went out."""
        self.phase = "waiting for the index"
        self.item = match["url"].rstrip("/").rpartition("/")[2]


_READERS = (
    (_EDGE, Trace.edge),
    (_FETCH, Trace.fetch),
    (_FOUND, Trace.found),
    (_RANGE, Trace.range),
    (_PASSED, Trace.passed),
    (_CHOSEN, Trace.choose),
    (_RECEIVED, Trace.received),
    (_REQUEST, Trace.request),
)
