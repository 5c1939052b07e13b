"""The only place that names rattler: conda packages chosen for a platform, and what they hold for Python.

Channels, virtual packages, certificates and credentials are told; nothing of this machine's conda or rattler
configuration gets in, and no credentials get into what rattler keeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import warnings
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import rattler
from rattler.exceptions import SolverError
from rattler.networking import AddHeadersMiddleware, MirrorMiddleware, RetryMiddleware
from rattler.package_streaming import PackageArchive, download_to_writer

from flowkiln.envs import (
    condaabsence,
    condaaccess,
    condacontents,
    condadriven,
    condafailures,
    condaloop,
    condapool,
    condaspec,
)
from flowkiln.envs.condaerrors import BrokenChannel, ChannelDenied
from flowkiln.envs.condapool import Candidate, Pool
from flowkiln.envs.condaquestion import CondaAnswer, CondaQuestion, CondaSolver
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.subdirs import NOARCH, subdir_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Mapping, Sequence

    from flowkiln.envs.channels import Channel
    from flowkiln.envs.virtual import Virtual

Result = TypeVar("Result")

_ORDINARY = r'python[build="^(?!.*_cp\d+t$).*$"]'
"""Builds of Python with the GIL: the others have an ABI of their own, which wheels and locks do not have."""
_AT_ONCE = 16


def ask(solver: CondaSolver, question: CondaQuestion) -> CondaAnswer:
    """Solves ``question``. Raises the ``EnvError`` that says what is wrong, naming the environment.

    A channel that refuses the login is asked once more with another one, where a command or the keyring has one.
    """
    work = _Work(solver, question)
    try:
        return work.whole()
    except ChannelDenied as error:
        if solver.offline or not solver.plan.renew_used(str(error.data["url"]), work.logins):
            raise
    return _Work(solver, question).whole()


class _Work:
    """One solve on the event loop: rattler's objects for it, made once."""

    def __init__(self, solver: CondaSolver, question: CondaQuestion) -> None:
        self.solver = solver
        self.question = question
        self.cutoff = datetime.fromisoformat(question.exclude_newer) if question.exclude_newer else None
        self.channels, self.specs = condaaccess.directed(solver.plan, question.specs)
        addresses = [url for channel in self.channels for url in channel.asked]
        self.logins = {url: None if solver.offline else solver.plan.credentials(url) for url in addresses}
        self.client = client(solver, self.channels, self.logins)
        action: Any = "force-cache-only" if solver.offline else "cache-or-fetch"
        (solver.folder / "repodata").mkdir(parents=True, exist_ok=True)
        self.gateway = rattler.Gateway(
            cache_dir=solver.folder / "repodata",
            default_config=rattler.SourceConfig(cache_action=action),
            client=self.client,
        )
        self.subdirs: Any = [subdir_of(question.platform), NOARCH]
        self.sources = [self._source(channel.shown) for channel in self.channels]

    def _source(self, url: str) -> rattler.Channel | _NoarchOnly:
        channel = rattler.Channel(url)
        alone = self.solver.offline and condaabsence.known(self.solver.folder, url, self.subdirs[0])
        return _NoarchOnly(channel, self.gateway) if alone else channel

    def whole(self) -> CondaAnswer:
        """The answer, of whoever is to solve. Raises ``EnvError``."""
        solver, question = self.solver, self.question
        if solver.driven is None:
            packages = condaloop.run(self.answer(), solver, question)
        else:
            condadriven.ready(solver)
            pool, wanted = condaloop.run(self.candidates(), solver, question)
            unmet = functools.partial(condapool.unmet, asked=self.asked, virtual=self.virtual, matches=_matches)
            chosen = condadriven.choose(solver, question, pool, wanted, unmet)
            packages = condaloop.run(self.rows([one.record for one in chosen]), solver, question)
        return CondaAnswer(packages, tuple(channel.shown for channel in self.channels))

    @property
    def asked(self) -> list[str]:
        """The match specs of the request, Python's among them, without their channels."""
        return [condaspec.anywhere(spec) for spec in (*self.specs, self.question.python_spec)]

    @property
    def virtual(self) -> dict[str, rattler.PackageRecord]:
        """The platform's packages by name, as records."""
        subdir = self.subdirs[0]
        return {
            one.name: rattler.PackageRecord(one.name, one.version, rattler.BuildString(one.build), 0, subdir)
            for one in self.question.virtual
        }

    async def answer(self) -> tuple[LockedConda, ...]:
        """The packages, complete. Raises ``EnvError``."""
        records = await self._told(self._solved())
        await self._remember(records)
        return await self.rows(records)

    async def _remember(self, records: Iterable[rattler.RepoDataRecord]) -> None:
        """Notes which channels have nothing for the platform, once they were read."""
        if self.solver.offline:
            return
        subdir = self.subdirs[0]
        used = {record.channel.rstrip("/") for record in records if record.url.rsplit("/", 2)[-2] == subdir}
        for channel in self.channels:
            there = channel.shown in used or await self.gateway.names([rattler.Channel(channel.shown)], [subdir])
            condaabsence.note(self.solver.folder, channel.shown, subdir, absent=not there)

    async def rows(self, records: Iterable[rattler.RepoDataRecord]) -> tuple[LockedConda, ...]:
        """The packages of ``records`` by name, complete. Raises ``EnvError``."""
        found = await _each(self._locked, sorted(records, key=lambda one: str(one.name.normalized)))
        return tuple(found)

    async def candidates(self) -> tuple[Pool, dict[str, str]]:
        """What another solver may choose from, and what it is asked for: by name, what follows the name.

        Raises ``EnvError``.
        """
        asked: dict[str, list[str]] = {}
        for spec in (*self.specs, self.question.python_spec):
            asked.setdefault(condaspec.name_of(spec), []).append(spec)
        places = {channel.shown: number for number, channel in enumerate(self.channels)}
        found = await self._told(self._everything(asked, places))
        await self._remember([one.record for one in found])
        # Not every solver is told of several specs for one name, or of what stands in brackets.
        odd = {name for name, specs in asked.items() if len(specs) > 1 or specs[0].endswith("]")}
        directed = {
            name: places[channel]
            for name, specs in asked.items()
            if (channel := next(filter(None, map(condaspec.channel_of, specs)), None))
        }
        rest = {name: condaspec.rest_of(specs[0]) for name, specs in asked.items()}
        return condapool.admitted(found, directed, odd), rest | dict.fromkeys(odd, "")

    async def _everything(self, asked: Mapping[str, Sequence[str]], places: Mapping[str, int]) -> list[Candidate]:
        """All packages that could have a part in an answer, of every channel."""
        wanted = [rattler.MatchSpec(name) for name in sorted(asked)]
        matching = {
            name: [rattler.MatchSpec(condaspec.anywhere(spec)) for spec in specs] for name, specs in asked.items()
        }
        listed = await self.gateway.query(
            self.sources, self.subdirs, wanted, recursive=True, channel_relations="disabled"
        )
        return [
            _candidate(
                record, places[record.channel.rstrip("/")], matching.get(record.name.normalized, ()), self.cutoff
            )
            for records in listed
            for record in records
        ]

    async def _told(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of ``work``, rattler's failures in our words."""
        if not self.question.versions:
            self.solver.reporter.say(f"locking {self.question.label}: reading {self.solver.plan.shown}")
        try:
            return await work
        except Exception as error:
            translated = condafailures.translate(error, self.solver, self.question)
            if translated is None:
                raise
            raise translated from error

    async def _solved(self) -> list[rattler.RepoDataRecord]:
        kept = await self._kept()
        if self.question.versions:
            wanted = await self._there()
            asked = {condaspec.name_of(text) for text in self.specs}
            # All of the other platform's versions; where they cannot be together here, of what is asked for itself.
            for further in (wanted, [text for text in wanted if condaspec.name_of(text) in asked]):
                with contextlib.suppress(SolverError):
                    return await self._solve(kept, further)
        return await self._solve(kept, [])

    async def _solve(self, kept: list[rattler.RepoDataRecord], further: list[str]) -> list[rattler.RepoDataRecord]:
        question = self.question
        specs = (*self.specs, question.python_spec)
        # A channel whose versions a spec excludes would not count as having the package: the names alone, asked for
        # as well, make it count.
        names = {condaspec.name_of(text) for text in specs if condaspec.channel_of(text) is None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of channels that recommend others: those asked are what is stated
            found: list[rattler.RepoDataRecord] = await rattler.solve(
                self.sources,
                [rattler.MatchSpec(text) for text in (*specs, *sorted(names - {*specs}))],
                gateway=self.gateway,
                platforms=self.subdirs,
                locked_packages=kept,
                virtual_packages=[_virtual(one) for one in question.virtual],
                timeout=timedelta(seconds=self.solver.limits.total),
                channel_priority=rattler.ChannelPriority.Strict,
                exclude_newer=self.cutoff,
                constraints=[_ORDINARY, "python-freethreading <0a0", *further],
                channel_relations="disabled",
            )
        return found

    async def _records(self, specs: Iterable[str]) -> list[rattler.RepoDataRecord]:
        wanted = [rattler.MatchSpec(text) for text in specs]
        found = await self.gateway.query(self.sources, self.subdirs, wanted, recursive=False)
        return [record for records in found for record in records]

    async def _kept(self) -> list[rattler.RepoDataRecord]:
        """The channels' records of the packages of the earlier lock: only what they still have is preferred."""
        question = self.question
        if question.upgrade is True or not question.preferred:
            return []
        free = question.upgrade or frozenset()
        before = {(one.filename, one.sha256) for one in question.preferred if one.name not in free}
        records = await self._records(sorted({one.name for one in question.preferred} - free))
        kept: dict[str, rattler.RepoDataRecord] = {}
        for record in records:
            # one without a sha256 is known by its name: its bytes are hashed later
            sha256 = record.sha256.hex() if record.sha256 else None
            if any(record.file_name == name and sha256 in (digest, None) for name, digest in before):
                kept.setdefault(record.name.normalized, record)
        return list(kept.values())

    async def _there(self) -> list[str]:
        """Constraints to the versions of the other platform, of those packages that this one has in them."""
        specs = {name: f"{name} =={version}" for name, version in sorted(self.question.versions.items())}
        records = await self._records(specs.values())
        there = {record.name.normalized for record in records}
        return [text for name, text in specs.items() if name in there]

    async def _locked(self, record: rattler.RepoDataRecord) -> LockedConda:
        md5 = record.md5.hex() if record.md5 else None
        sha256 = record.sha256.hex() if record.sha256 else await self._hashed(record, md5)
        return LockedConda(
            name=record.name.normalized,
            version=str(record.version),
            build=str(record.build),
            filename=record.file_name,
            url=record.url,
            sha256=sha256,
            md5=md5,
            size=record.size,
            depends=tuple(record.depends),
            provides=await self._provides(record, sha256),
        )

    async def _hashed(self, record: rattler.RepoDataRecord, md5: str | None) -> str:
        """The sha256 of a package whose channel states none: of its bytes, which fit the MD5 that it states."""
        whole, other = hashlib.sha256(), hashlib.md5(usedforsecurity=False)

        class Sink:
            @staticmethod
            def write(data: bytes) -> int:
                whole.update(data)
                other.update(data)
                return len(data)

        if self.solver.offline:
            raise condafailures.offline(self.question.label, record.file_name)
        try:
            await download_to_writer(self.client, record.url, Sink())
        except Exception as error:
            raise condafailures.of_package(error, record.file_name, self.question.label) from error
        if md5 is not None and other.hexdigest() != md5:
            message = f"environment {self.question.label}: {record.file_name} is not what its channel states (md5)"
            raise BrokenChannel(message, hint="Nothing was locked; whoever runs the channel can index it anew.")
        return whole.hexdigest()

    async def _provides(self, record: rattler.RepoDataRecord, sha256: str) -> condacontents.Provided:
        """The Python distributions inside a package: none where it needs no Python."""
        if not ({"python", "python_abi"} & set(map(condaspec.name_of, record.depends)) or record.noarch.python):
            return ()
        known = condacontents.recall(self.solver.folder, sha256)
        if known is not None:
            return known
        if self.solver.offline:
            raise condafailures.offline(self.question.label, record.file_name)
        try:
            archive = await self._archive(record.url)
            paths = condacontents.listed(await archive.read_files(condacontents.LISTS))
        except Exception as error:
            raise condafailures.of_package(error, record.file_name, self.question.label) from error
        found = condacontents.distributions(paths, str(record.version))
        condacontents.remember(self.solver.folder, sha256, found)
        return found

    async def _archive(self, url: str) -> PackageArchive:
        if url.startswith("file:"):
            return await PackageArchive.from_path(url2pathname(urlsplit(url).path))
        return await PackageArchive.from_url(self.client, url)


class _NoarchOnly:
    """A channel that is known to have nothing for the platform, as a source of what it has for all."""

    def __init__(self, channel: rattler.Channel, gateway: rattler.Gateway) -> None:
        self._channel = channel
        self._gateway = gateway

    async def fetch_package_records(
        self, platform: rattler.Subdir, name: rattler.PackageName
    ) -> list[rattler.RepoDataRecord]:
        """The records of ``name``; the reader's own protocol."""
        if str(platform) != NOARCH:
            return []
        found = await self._gateway.query([self._channel], [platform], [name.normalized], recursive=False)
        return [record for records in found for record in records]

    def package_names(self, platform: rattler.Subdir) -> list[str]:  # noqa: ARG002  the reader's own protocol
        """None: only a request without a name asks for all."""
        return []


async def _each(call: Any, items: Sequence[Any]) -> list[Any]:
    """``call`` of each item, in order, some at once; the first failure ends the others."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(item: Any) -> Any:
        async with gate:
            return await call(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _candidate(
    record: rattler.RepoDataRecord, number: int, specs: Iterable[rattler.MatchSpec], cutoff: datetime | None
) -> Candidate:
    entry = json.loads(record.to_json())
    built = record.indexed_timestamp or record.timestamp  # as rattler's own solve reads a cut-off
    for key in ("fn", "url", "channel"):
        entry.pop(key, None)
    return Candidate(
        name=record.name.normalized,
        version=str(record.version),
        build=str(record.build),
        channel=number,
        subdir=record.url.rsplit("/", 2)[-2],
        filename=record.file_name,
        depends=tuple(record.depends),
        sha256=entry.get("sha256"),
        recent=cutoff is not None and (built is None or built > cutoff),
        fits=all(spec.matches(record) for spec in specs),
        entry=entry,
        record=record,
    )


def _matches(spec: str, record: rattler.PackageRecord) -> bool:
    return rattler.MatchSpec(spec).matches(record)


def _virtual(one: Virtual) -> rattler.GenericVirtualPackage:
    return rattler.GenericVirtualPackage(
        rattler.PackageName(one.name), rattler.Version(one.version), rattler.BuildString(one.build)
    )


def client(
    solver: CondaSolver, channels: Sequence[Channel], logins: Mapping[str, tuple[str, str] | None]
) -> rattler.Client:
    """A client that asks for ``channels`` without credentials and sends those of ``logins`` where they belong.

    rattler keeps URLs with its repodata: so it is given URLs without secrets, and tokens and passwords are added
    below it, to each request.
    """
    mirrors = {channel.shown: [condaaccess.plain(url) for url in channel.asked] for channel in channels}
    moved = {shown: urls for shown, urls in mirrors.items() if urls != [shown]}

    headers = functools.partial(condaaccess.headers, logins=logins, netrc=solver.plan.netrc)
    middlewares: list[Any] = [RetryMiddleware(2), AddHeadersMiddleware(headers)]
    if moved:
        middlewares.insert(0, MirrorMiddleware(moved))
    with condaaccess.certificates(solver.environ):
        return rattler.Client(middlewares, user_agent="flowkiln", timeout=int(solver.limits.stall))
