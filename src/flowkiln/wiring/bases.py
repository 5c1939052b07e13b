"""Bases -> pins: those that stand in the lock, made where they are missing and may be made."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flowkiln._base import parallel
from flowkiln._base.errors import ReadOnly
from flowkiln.envs.errors import Offline, UnpinnedBase
from flowkiln.envs.lockfolder import INDEX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Reporter
    from flowkiln._base.settings import Settings
    from flowkiln.envs.basepin import BasePin
    from flowkiln.envs.lockfolder import LockFolder
    from flowkiln.wiring.policy import Policy

    Key = tuple[str, Platform]

AT_ONCE = 4
"""Bases that are read at once."""


def settle(  # noqa: PLR0913  what it is about, how, and for whom
    folder: LockFolder,
    wanted: Sequence[tuple[str, Platform]],
    settings: Settings,
    reporter: Reporter,
    *,
    policy: Policy,
    upgrade: bool = False,
    look: Callable[[Key], BasePin],
    decide: Callable[[BasePin], BasePin],
    users: Mapping[tuple[str, Platform], Iterable[str]] | None = None,
) -> dict[tuple[str, Platform], BasePin]:
    """The pin of every base that is wanted, made now where ``policy`` allows it.

    Standing pins are used as they are; only ``upgrade`` moves them, to what their references name now. ``look``
    says what a base is now, and ``decide`` gives a new pin its bytecode. ``users`` names the environments that are
    baked on each: a pin keeps them, for those who have lock files alone. Raises ``UnpinnedBase``, ``Offline``,
    ``ReadOnly``, and the errors of bases and registries.
    """
    keys = list(dict.fromkeys(wanted))
    standing = _standing(folder, keys)
    lacking = [key for key in keys if key not in standing]
    if lacking and (policy.locked or policy.frozen):
        raise _unpinned(folder, lacking[0])
    if upgrade or lacking:
        making = keys if upgrade else lacking
        if settings.flag("offline"):
            message = f"pinning base {making[0][0]} needs its registry, and the network is switched off"
            raise Offline(message, hint="Run the command once without --offline.")
        standing |= _make(folder, making, reporter, _Maker(look, decide, upgrade))
    if users and not (policy.locked or policy.frozen):
        standing |= _noted(folder, {key: standing[key] for key in keys}, users)
    return {key: standing[key] for key in keys}


def _noted(folder: LockFolder, pins: dict[Key, BasePin], users: Mapping[Key, Iterable[str]]) -> dict[Key, BasePin]:
    """``pins`` with those who use them, written where that is new. In a folder that cannot be written they stay."""
    if all({*users.get(key, ())} <= {*pin.environments} for key, pin in pins.items()):
        return pins
    target = folder.or_cache()
    with target.hold():
        standing = _by_key(target.read_bases())  # as they are by now: others may have moved them or noted more
        noted = {
            key: replace(pin, environments=tuple(sorted({*pin.environments, *users.get(key, ())})))
            for key, pin in standing.items()
            if key in pins
        }
        target.write_bases((standing | noted).values())
    return pins | noted


def note_without(folder: LockFolder, decided: Mapping[Key, BasePin]) -> dict[Key, BasePin]:
    """``decided``, whose ``without_bytecode`` is now in the lock, unless its folder cannot be written."""
    if decided:
        target = folder.or_cache()
        with target.hold():
            standing = _by_key(target.read_bases())
            without = {key: pin.without_bytecode for key, pin in decided.items()}
            moved = {
                key: replace(pin, without_bytecode=without.get(key, pin.without_bytecode))
                for key, pin in standing.items()
            }
            target.write_bases((dict(decided) | moved).values())
    return dict(decided)


def prune(folder: LockFolder, names: Iterable[str], users: Mapping[Key, Iterable[str]]) -> list[BasePin]:
    """Removes the pins that environments ``names`` had and are not baked on any more; the pins that are gone.

    ``users`` names, for each base, those of them that are baked on it now. Pins of others stay.
    """
    asked = {*names}
    target = folder.or_cache()
    with target.hold():
        standing = target.read_bases()
        kept, removed = [], []
        for pin in standing:
            gone = (asked - {*users.get((pin.reference, pin.platform), ())}) & {*pin.environments}
            left = tuple(name for name in pin.environments if name not in gone)
            if left or not gone:
                kept.append(replace(pin, environments=left))
            else:
                removed.append(pin)
        if tuple(kept) != standing:
            target.write_bases(kept)
    return removed


def _standing(folder: LockFolder, keys: Iterable[Key]) -> dict[Key, BasePin]:
    """The pins that stand in ``folder``, with those of its stand-in in the cache where it cannot be written."""
    found = _by_key(folder.read_bases())
    if any(key not in found for key in keys) and (target := folder.or_cache()) != folder:
        found = _by_key(target.read_bases()) | found
    return found


def _by_key(pins: Iterable[BasePin]) -> dict[Key, BasePin]:
    return {(pin.reference, pin.platform): pin for pin in pins}


def _unpinned(folder: LockFolder, key: Key) -> UnpinnedBase:
    declared = folder.path.with_suffix(".py")
    flow = os.path.relpath(declared) if declared.is_file() else "FLOW"
    message = f"base {key[0]} has no pin for {key[1]} in {folder.path}{os.sep}{INDEX}"
    return UnpinnedBase(message, hint=f"Run `flowkiln env lock --base {flow}` and commit the files it names.")


@dataclass(frozen=True, slots=True)
class _Maker:
    """How a pin is made for a key."""

    look: Callable[[Key], BasePin]
    decide: Callable[[BasePin], BasePin]
    upgrade: bool

    def decided(self, found: BasePin, before: BasePin | None) -> BasePin:
        """``found`` with its bytecode and users; ``before`` where that is the same base, decided already."""
        if before is None:
            return self.decide(found)
        if before.manifest == found.manifest and before.bytecode is not None:
            return before
        return self.decide(replace(found, environments=before.environments))


def _make(folder: LockFolder, making: Sequence[Key], reporter: Reporter, maker: _Maker) -> dict[Key, BasePin]:
    target = folder.or_cache()
    if target != folder and any(key in making for key in _by_key(folder.read_bases())):
        message = f"the pins in {folder.path} cannot be moved: the folder cannot be written"
        raise ReadOnly(message, hint="Make it writable, or move them where it is and commit the change.")

    def waiting(holder: str, seconds: float) -> None:
        reporter.say(f"waiting for {holder}, which writes {folder.path} ({seconds:.0f} s)")

    with target.hold(waiting):
        standing = _by_key(target.read_bases())
        lacking = [key for key in making if maker.upgrade or key not in standing]
        looked = parallel.together(maker.look, lacking, at_once=AT_ONCE)
        made = {key: maker.decided(one, standing.get(key)) for key, one in zip(lacking, looked, strict=True)}
        target.write_bases((standing | made).values())
    for key, pin in made.items():
        _announce(pin, standing.get(key), target, reporter)
    return standing | made


def _announce(pin: BasePin, before: BasePin | None, target: LockFolder, reporter: Reporter) -> None:
    name = f"{pin.reference} for {pin.platform}"
    if pin == before:
        reporter.say(f"base {name} is what it was")
        return
    facts = pin.facts
    what = [f"Python {facts.python}" if facts.python else "no Python"]
    what.append(f"glibc {facts.glibc[0]}.{facts.glibc[1]}" if facts.glibc else facts.libc)
    what.append(f"bytecode of {pin.bytecode}" if pin.bytecode else "no bytecode")
    place = target.path if target.is_cached else os.path.relpath(target.path)
    reporter.say(f"pinned base {name} in {place}: {', '.join(what)}, {pin.manifest[:19]}")
