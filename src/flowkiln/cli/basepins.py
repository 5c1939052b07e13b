"""The bases of environments on the command line: pinned by ``env lock --base``, shown by ``list`` and ``show``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkiln.cli import baking, targets

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln.cli.output import Session
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lockfolder import LockFolder
    from flowkiln.wiring.baking import Wish
    from flowkiln.wiring.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A base that is pinned, where that stands, and what it was before: None where it had no pin."""

    pin: BasePin
    folder: LockFolder
    before: BasePin | None
    environments: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the pin is new, or names another manifest or bytecode than before."""
        return self.before is None or _named(self.pin) != _named(self.before)

    def to_json(self) -> JSONObject:
        """The pin as the --json output shows it."""
        moved = self.before is not None and self.before.manifest != self.pin.manifest
        shown = {**document(self.pin), "environments": list(self.environments), "folder": str(self.folder.path)}
        return {**shown, "changed": self.changed, "before": self.before.manifest if self.before and moved else None}

    def line(self) -> str:
        """The pin for people."""
        word = "pinned" if self.before is None else "moved" if self.changed else "fresh"
        return f"base {line(self.pin)}: {word}, for {', '.join(self.environments)}"


def _named(pin: BasePin) -> tuple[str, str, str | None, tuple[str, ...]]:
    return pin.manifest, pin.config, pin.bytecode, pin.without_bytecode


def document(pin: BasePin) -> JSONObject:
    """A pin as the --json output shows it."""
    facts = pin.facts
    return {
        "reference": pin.reference,
        "platform": str(pin.platform),
        "manifest": pin.manifest,
        "config": pin.config,
        "python": facts.python,
        "interpreter": facts.interpreter,
        "libc": facts.libc,
        "glibc": f"{facts.glibc[0]}.{facts.glibc[1]}" if facts.glibc else None,
        "bytecode": pin.bytecode,
        "without_bytecode": list(pin.without_bytecode),
    }


def line(pin: BasePin) -> str:
    """A pin in one line, for people."""
    facts = pin.facts
    words = [f"Python {facts.python}" if facts.python else "no Python"]
    words.append(f"glibc {facts.glibc[0]}.{facts.glibc[1]}" if facts.glibc else facts.libc)
    return f"{pin.reference} ({pin.platform}) {pin.manifest[:19]}, {', '.join(words)}"


def pinned(texts: Sequence[str], speaker: Session, policy: Policy, *, upgrade: bool) -> list[Pinned]:
    """The bases of the environments that ``texts`` name, pinned now where ``policy`` allows it.

    Pins that a whole flow, project or file does not need any more are removed. Raises ``UnpinnedBase`` and the
    errors of registries and bases.
    """
    found: list[Pinned] = []
    for home, wishes in baking.wishes(texts, speaker).items():
        found += _of_home(home, wishes, speaker, policy, upgrade=upgrade)
    return found


def _of_home(home: Path, wishes: list[Wish], speaker: Session, policy: Policy, *, upgrade: bool) -> list[Pinned]:
    bakery = baking.bakery(home, speaker)
    wanted = baking.expanded(wishes, (), None, bakery)
    before = {(folder, key): pin for folder in {one.folder for one in wanted} for key, pin in _standing(folder)}
    pins = bakery.pin(wanted, policy, upgrade=upgrade)
    grouped: dict[tuple[LockFolder, BasePin], list[str]] = {}
    for wish in wanted:
        grouped.setdefault((wish.folder, pins[wish]), []).append(wish.lock.name)
    return [
        Pinned(
            pin=pin,
            folder=folder,
            before=before.get((folder, (pin.reference, str(pin.platform)))),
            environments=tuple(dict.fromkeys(names)),
        )
        for (folder, pin), names in grouped.items()
    ]


def _standing(folder: LockFolder) -> list[tuple[tuple[str, str], BasePin]]:
    found = {(pin.reference, str(pin.platform)): pin for pin in folder.or_cache().read_bases()}
    found |= {(pin.reference, str(pin.platform)): pin for pin in folder.read_bases()}
    return list(found.items())


def pruned(texts: Sequence[str], speaker: Session) -> list[tuple[LockFolder, BasePin]]:
    """Removes the pins that whole flows, projects and files do not need any more: what is gone."""
    whole = [text for text in texts if _is_whole(text)]
    gone: list[tuple[LockFolder, BasePin]] = []
    for home, wishes in baking.wishes(whole, speaker).items():
        bakery = baking.bakery(home, speaker)
        gone += bakery.prune(baking.expanded(wishes, (), None, bakery))
    return gone


def _is_whole(text: str) -> bool:
    match targets.parse(text):
        case targets.FlowTarget(_, None) | targets.SourceTarget():
            return True
    return False
