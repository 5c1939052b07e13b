"""Bases of images: a reference becomes a pin, and a pin the documents of its image, each read once per digest.

A tag is asked for when a base is pinned and never again: afterwards everything is found by digest, most of it in
the cache. The layers stream by once, for the facts; nothing of a base is run or kept.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from flowkiln._base import digests, files, parallel
from flowkiln._base.json import compact
from flowkiln._base.report import Silent
from flowkiln.envs.basepin import BasePin
from flowkiln.images import facts, oci, reference
from flowkiln.images.errors import BaseAbsent, BaseOfAnotherPlatform, BaseUnreadable
from flowkiln.images.facts import Survey
from flowkiln.images.oci import Descriptor, Document
from flowkiln.images.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.platforms import Platform
    from flowkiln._base.report import Phase, Reporter
    from flowkiln.images.reference import Reference
    from flowkiln.images.registry import Fetched

_SCHEMA = 2
"""Raised when a survey holds more or other things: bases are read anew then."""
_VARIANTS = {"amd64": ("", "v1"), "arm64": ("", "v8")}
"""Variants of an architecture that all its processors have."""


class RegistryReader(Protocol):
    """What is asked of a registry; ``flowkiln.images.registry.Registry`` is one."""

    def manifest(self, repository: str, version: str) -> Fetched | None:
        """The manifest or index at a tag or digest; None when it is definitely not there."""

    def blob(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob as they come, their digest checked at the end."""

    def read_blob(self, repository: str, digest: str) -> bytes:
        """The bytes of a small blob, checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseImage:
    """A base as its own documents describe it: ``document`` is the config as bytes, ``config`` what it says.

    ``layers`` are the descriptors of its layers, lowest first.
    """

    manifest: Document
    document: Document
    config: JSONObject
    layers: tuple[Descriptor, ...]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the layers' archives, lowest first."""
        return tuple(self.config["rootfs"]["diff_ids"])

    @property
    def environ(self) -> tuple[str, ...]:
        """The variables of the config, as ``NAME=value``."""
        return tuple((self.config.get("config") or {}).get("Env") or ())


@dataclass(slots=True)
class _Kept:
    """What the cache has of a base; ``survey`` is None where its layers were not read here."""

    image: BaseImage
    survey: Survey | None


class Bases:
    """Pins bases and opens pinned ones. ``registries`` gives the client of a host; ``cache`` is its root folder."""

    def __init__(
        self, registries: Callable[[str], RegistryReader], cache: Path, reporter: Reporter | None = None
    ) -> None:
        self._registries = registries
        self._folder = cache / "images" / "bases"
        self._records = Records(cache)
        self._reporter = reporter or Silent()

    def pin(self, text: str, platform: Platform, *, python: str | None = None) -> BasePin:
        """The pin of the base that ``text`` names now, for ``platform``; its ``bytecode`` is left open.

        ``python`` (X.Y) chooses among several interpreters; X.Y.Z also serves where the base does not say which
        release it has. Raises the errors of references, of bases and of registries.
        """
        place = reference.parse(text)
        registry = self._registries(place.host)
        fetched = registry.manifest(place.repository, place.version)
        if fetched is None:
            raise BaseAbsent(f"{place.host} has no image {place}")
        if fetched.media_type in oci.INDEXES:
            fetched = self._of_platform(text, place, fetched, platform)
        kept = self._read(text, place, fetched, platform)
        assert kept.survey is not None
        return BasePin(
            reference=text,
            platform=platform,
            manifest=kept.image.manifest.digest,
            config=kept.image.document.digest,
            facts=kept.survey.facts(python, name=f"base {text}"),
        )

    def opened(self, pin: BasePin) -> BaseImage:
        """The documents of a pinned base: from the cache, else from the registry by digest.

        Raises ``BaseAbsent`` when the registry no longer has it, ``BaseUnreadable`` for documents that do not fit
        the pin, and the registry's errors.
        """
        kept = self._kept(pin.manifest)
        image = self._fetch(pin) if kept is None else kept.image
        if image.document.digest != pin.config:
            message = f"base {pin.reference}: manifest {pin.manifest} has the config {image.document.digest}"
            hint = (
                "Take flowkiln.lock back from version control, or pin anew with `flowkiln env lock --upgrade-base`."
            )
            raise BaseUnreadable(f"{message}, the lock says {pin.config}", hint=hint)
        return image

    def reference(self, pin: BasePin) -> Reference:
        """Where the pinned manifest is, by digest."""
        return reference.parse(pin.reference).at(pin.manifest)

    def _fetch(self, pin: BasePin) -> BaseImage:
        place = self.reference(pin)
        fetched = self._registries(place.host).manifest(place.repository, pin.manifest)
        if fetched is None:
            message = f"{place.host} no longer has {place}, which the lock pins for {pin.reference}"
            raise BaseAbsent(message, hint="Pin anew what the tag is now: `flowkiln env lock --upgrade-base`.")
        image = self._documents(pin.reference, place, fetched, pin.platform)
        if image.manifest.digest != pin.manifest:
            message = f"{place.host} answers {image.manifest.digest} for {place}"
            raise BaseUnreadable(message, hint="Something between here and the registry changes what it says.")
        self._keep(_Kept(image, None))
        return image

    def _of_platform(self, text: str, place: Reference, index: Fetched, platform: Platform) -> Fetched:
        """The manifest of ``platform`` in an index, whose attestations are of no platform."""
        rows = [row for row in _object(text, index.data).get("manifests") or () if isinstance(row, dict)]
        told = [(row, row["platform"]) for row in rows if isinstance(row.get("platform"), dict)]
        found = [(row, one) for row, one in told if (one.get("os"), one.get("architecture")) == _pair(platform)]
        for variant in _VARIANTS[platform.arch]:
            for row, one in found:
                if (one.get("variant") or "") == variant:
                    fetched = self._registries(place.host).manifest(place.repository, str(row.get("digest")))
                    if fetched is None:
                        raise BaseAbsent(f"{place.host} has {place}, but not its manifest for {platform}")
                    return fetched
        names = sorted({_name(one) for _, one in told} - {"unknown/unknown"})
        message = f"base {text} is not for {platform}; it has {', '.join(names) or 'no platform'}"
        raise BaseOfAnotherPlatform(message, data={"platforms": names})

    def _read(self, text: str, place: Reference, fetched: Fetched, platform: Platform) -> _Kept:
        """The base with its survey, read by one process at a time and from the cache by the others."""

        def waiting(holder: str, seconds: float) -> None:
            self._reporter.say(f"waiting for {holder}, which reads base {text} ({seconds:.0f} s)")

        kept = self._kept(fetched.digest)
        if kept is None or kept.survey is None:
            lock = self._path(fetched.digest).with_suffix(".lock")
            with files.locked(lock, waiting=waiting):
                kept = self._kept(fetched.digest)
                if kept is None or kept.survey is None:
                    image = self._documents(text, place, fetched, platform)
                    survey = self._survey(text, place, image)
                    kept = _Kept(image, survey)
                    self._keep(kept)
                    self._records.add_libraries(image.manifest.digest, survey.libraries)
        _check_platform(text, kept.image.config, platform)
        return kept

    def _documents(self, text: str, place: Reference, fetched: Fetched, platform: Platform) -> BaseImage:
        document = _object(text, fetched.data)
        if document.get("schemaVersion") == 1 or "fsLayers" in document:
            message = f"base {text} has a manifest of schema 1, which names neither layers nor config by digest"
            raise BaseUnreadable(message)
        config = str((document.get("config") or {}).get("digest"))
        if not digests.is_digest(config) or fetched.media_type not in oci.MANIFESTS:
            message = f"base {text} is no image: its manifest is {fetched.media_type or 'of no type'}"
            raise BaseUnreadable(message)
        data = self._registries(place.host).read_blob(place.repository, config)
        image = _image(text, Document(media_type=fetched.media_type, data=fetched.data), data)
        _check_platform(text, image.config, platform)
        return image

    def _survey(self, text: str, place: Reference, image: BaseImage) -> Survey:
        registry = self._registries(place.host)
        total = sum(one.size for one in image.layers)
        with self._reporter.phase(f"read base {text}", total=total, unit="bytes") as phase:
            opened = [
                partial(_counted, partial(registry.blob, place.repository, one.digest), phase)
                for one in image.layers
            ]
            return facts.survey(image.config, opened, name=f"base {text}")

    # -- the cache ---------------------------------------------------------------------------------------------

    def _path(self, manifest: str) -> Path:
        return self._folder / f"{digests.hexdigits(manifest)}.json"

    def _kept(self, manifest: str) -> _Kept | None:
        """What the cache has of a manifest; None where that is nothing, or not what its digests say."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, BaseUnreadable):
            path = self._path(manifest)
            document = json.loads(path.read_bytes())
            with suppress(OSError):
                os.utime(path)  # used now, for garbage collection
            own = Document(media_type=document["media_type"], data=document["manifest"].encode())
            image = _image("", own, document["config"].encode())
            if document["schema"] == _SCHEMA and own.digest == manifest:
                survey = document["survey"]
                return _Kept(image, None if survey is None else Survey.from_json(survey))
        return None

    def _keep(self, kept: _Kept) -> None:
        own = kept.image.manifest
        document: JSONObject = {"schema": _SCHEMA, "media_type": own.media_type, "manifest": own.data.decode()}
        document["config"] = kept.image.document.data.decode()
        document["survey"] = kept.survey.to_json() if kept.survey is not None else None
        files.write_atomic(self._path(own.digest), compact(document))


def _counted(opened: Callable[[], Iterator[bytes]], phase: Phase) -> Iterator[bytes]:
    for block in opened():
        if parallel.stopped():
            raise KeyboardInterrupt
        phase.advance(len(block))
        yield block


def _image(text: str, manifest: Document, config: bytes) -> BaseImage:
    """The image of these documents. Raises ``BaseUnreadable`` where they are not a manifest and its config."""
    try:
        document = _object(text, manifest.data)
        named = Descriptor.from_json(document["config"])
        layers = tuple(Descriptor.from_json(row) for row in document["layers"])
        own = Document(media_type=named.media_type, data=config)
        content = _object(text, config)
        whole = len(content["rootfs"]["diff_ids"]) == len(layers) and own.digest == named.digest
        variables = (content.get("config") or {}).get("Env") or ()
        whole = whole and all(isinstance(one, str) for one in (*content["rootfs"]["diff_ids"], *variables))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        message = f"base {text} has a manifest or config that is none ({error!r})"
        raise BaseUnreadable(message) from error
    if not whole:
        message = f"base {text} has a config that does not fit its manifest"
        raise BaseUnreadable(message)
    return BaseImage(manifest=manifest, document=own, config=content, layers=layers)


def _check_platform(text: str, config: JSONObject, platform: Platform) -> None:
    """Raises ``BaseOfAnotherPlatform`` unless the config says that it is for ``platform``."""
    if (config.get("os"), config.get("architecture")) != _pair(platform):
        name = _name(config)
        message = f"base {text} is not for {platform}; it has {name}"
        raise BaseOfAnotherPlatform(message, data={"platforms": [name]})


def _pair(platform: Platform) -> tuple[str, str]:
    return platform.os, platform.arch


def _name(told: JSONObject) -> str:
    """``os/arch`` or ``os/arch/variant`` as images say it."""
    variant = told.get("variant")
    return f"{told.get('os')}/{told.get('architecture')}" + (f"/{variant}" if variant else "")


def _object(text: str, data: bytes) -> JSONObject:
    """The JSON object that ``data`` is. Raises ``BaseUnreadable``."""
    try:
        document = json.loads(data.decode())
    except ValueError as error:
        message = f"base {text} has a manifest or config that is no JSON: {error}"
        raise BaseUnreadable(message) from error
    if not isinstance(document, dict):
        message = f"base {text} has a manifest or config that is no JSON object"
        raise BaseUnreadable(message)
    return document
