"""``<env>.conda-lock.yml``: the conda packages of a lock in conda-lock's unified format, all platforms in one file.

The conda-lock command reads it. The text depends on the lock alone: packages sorted by name and platform, one block
each, every text quoted. What the format has no place for stands in ``custom_metadata``, one key for each package.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from flowkiln._base import digests
from flowkiln._base.errors import FormatTooNew
from flowkiln.envs import pylock
from flowkiln.envs.errors import BadLockFile
from flowkiln.envs.lock import LockedConda
from flowkiln.envs.lockfileerrors import NoMd5, NotExportable
from flowkiln.envs.subdirs import NOARCH, platform_of, subdir_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from flowkiln._base.platforms import Platform
    from flowkiln.envs.lock import EnvLock, LockedWheel, PlatformLock

SCHEMA = 1
"""The number of what flowkiln keeps in ``custom_metadata``."""
HEADER = "# Written by flowkiln. Belongs in version control; `flowkiln env lock` changes it."
_SPEC = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*(.*?)\s*", re.DOTALL)
_EXTRAS = re.compile(
    r"(?:size=(?P<size>\d+)(?:; |$))?(?:provides=(?P<provides>[^;]+)(?:; |$))?(?:depends=(?P<depends>.+))?"
)
_UNPRINTED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CondaLock:
    """What a file says: the channels, best first, and the packages of each platform, sorted by name."""

    channels: tuple[str, ...]
    platforms: Mapping[Platform, tuple[LockedConda, ...]]


def serialise(lock: EnvLock) -> str:
    """The text of the file for ``lock``; its wheels are not in it. Raises ``NoMd5``."""
    ours = {"created-by": pylock.CREATED_BY, "schema": str(SCHEMA)}
    return _text_of(lock, HEADER, ours)


def exported(lock: EnvLock) -> str:
    """A file that stands alone, for other tools: the wheels are in it as packages of pip. Raises ``NoMd5``."""
    header = "# Exported by flowkiln, for example for `conda-lock install --name NAME FILE`."
    return _text_of(lock, header, {}, wheels=True)


def _text_of(lock: EnvLock, header: str, custom: Mapping[str, str], *, wheels: bool = False) -> str:
    parts = sorted((part for part in lock.platforms if part.conda), key=lambda part: subdir_of(part.platform))
    for part in parts:
        require_md5(part.conda)
    lines = [header, "version: 1", *_metadata(lock, parts, custom), "package:"]
    rows = [(one.name, subdir_of(part.platform), one) for part in parts for one in part.conda]
    for _, subdir, package in sorted(rows, key=lambda row: row[:2]):
        lines += [*_block(package, subdir), ""]
    pip = [(one.name, subdir_of(part.platform), one) for part in parts for one in part.wheels if wheels]
    for _, subdir, wheel in sorted(pip, key=lambda row: row[:2]):
        lines += [*_pip_block(wheel, subdir), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def require_md5(packages: Iterable[LockedConda]) -> None:
    """Guarantees that each package can be written; for solvers, so that nothing is locked that cannot be."""
    lacking = sorted(one.filename for one in packages if one.md5 is None)
    if lacking:
        one = f"{lacking[0]} has" if len(lacking) == 1 else f"{', '.join(lacking[:5])} have"
        raise NoMd5(f"{one} no MD5 hash in its channel, which conda-lock.yml needs")


def _metadata(lock: EnvLock, parts: list[PlatformLock], custom: Mapping[str, str]) -> list[str]:
    # the hash of what was asked for: one of what was found would differ, and conflict, with every upgrade
    subdirs = [(subdir_of(part.platform), part) for part in parts]
    lines = ["metadata:", "  content_hash:"]
    lines += [f"    {subdir}: {quoted(digests.hexdigits(lock.spec_id))}" for subdir, _ in subdirs]
    urls = [line for url in lock.channels for line in (f"    - url: {quoted(url)}", "      used_env_vars: []")]
    lines += ["  channels:", *urls] if urls else ["  channels: []"]
    lines += ["  platforms:", *(f"    - {subdir}" for subdir, _ in subdirs), "  sources: []"]
    kept = {_key(subdir, one.url): _extras(one) for subdir, part in subdirs for one in part.conda}
    pairs = [f"    {key}: {quoted(value)}" for key, value in custom.items()]
    pairs += [f"    {quoted(key)}: {quoted(value)}" for key, value in sorted(kept.items()) if value]
    return lines + (["  custom_metadata:", *pairs] if pairs else [])


def _block(one: LockedConda, subdir: str) -> list[str]:
    needs = [f"      {quoted(name)}: {quoted(spec)}" for name, spec in _dependencies(one.depends).items()]
    return [
        f"  - name: {quoted(one.name)}",
        f"    version: {quoted(one.version)}",
        "    manager: conda",
        f"    platform: {subdir}",
        *(["    dependencies:", *needs] if needs else ["    dependencies: {}"]),
        f"    url: {quoted(one.url)}",
        "    hash:",
        f"      md5: {quoted(one.md5 or '')}",
        f"      sha256: {quoted(one.sha256)}",
        "    category: main",
        "    optional: false",
        f"    build: {quoted(one.build)}",
    ]


def _pip_block(one: LockedWheel, subdir: str) -> list[str]:
    if one.published is None:
        message = f"{one.name} was built of {one.url}, which is no file that conda-lock.yml can name"
        raise NotExportable(message, hint="Use --format environment.")
    url, sha256 = one.published
    needs = [f'      {quoted(name)}: "*"' for name in one.requires]
    return [
        f"  - name: {quoted(one.name)}",
        f"    version: {quoted(one.version)}",
        "    manager: pip",
        f"    platform: {subdir}",
        *(["    dependencies:", *needs] if needs else ["    dependencies: {}"]),
        f"    url: {quoted(url)}",
        "    hash:",
        f"      sha256: {quoted(sha256)}",
        "    category: main",
        "    optional: false",
    ]


def quoted(text: str) -> str:
    """``text`` as a YAML scalar in double quotes, whatever is in it."""
    return _UNPRINTED.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(text, ensure_ascii=False))


def _key(subdir: str, url: str) -> str:
    return f"{subdir}/{file_name(url)}"


def file_name(url: str) -> str:
    """The name of the file that ``url`` leads to."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _dependencies(depends: Iterable[str]) -> dict[str, str]:
    """Match specs as the format has them, by name; of several for one name all joined, else the last."""
    found: dict[str, str] = {}
    for spec in depends:
        name, rest = split(spec)
        before = found.get(name, "")
        joined = f"{before},{rest}" if before and rest else before or rest
        found[name] = rest if " " in joined and rest else joined
    return found


def split(spec: str) -> tuple[str, str]:
    """A match spec's name and the rest: version and build."""
    match = _SPEC.fullmatch(spec)
    return (match[1], match[2]) if match else (spec, "")


def _specs(dependencies: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name} {rest}".rstrip() for name, rest in dependencies.items())


def _extras(one: LockedConda) -> str:
    """What only flowkiln keeps of a package, as one text; the specs only where the format changes them."""
    fields = [f"size={one.size}"] if one.size is not None else []
    if one.provides:
        fields.append("provides=" + ", ".join(f"{name} {version}" for name, version in one.provides))
    if _specs(_dependencies(one.depends)) != one.depends:
        fields.append("depends=" + json.dumps(one.depends, ensure_ascii=False))
    return "; ".join(fields)


def is_ours(text: str) -> bool:
    """Whether ``text`` is a file that flowkiln wrote, and may remove."""
    return f'    created-by: "{pylock.CREATED_BY}"\n' in text


def parse(text: str, path: Path) -> CondaLock:
    """What a file says that flowkiln wrote. Raises ``BadLockFile`` naming file and line, ``FormatTooNew``."""
    document = load(text, path)
    try:
        metadata = document["metadata"]
        kept = metadata["custom_metadata"]
        channels = tuple(_text(one, "url") for one in metadata["channels"])
        platforms = [platform_of(subdir) for subdir in metadata["platforms"]]
        created_by, schema = kept.get("created-by"), kept.get("schema", "")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise pylock.bad_file(path, text, "metadata:", f"the metadata are not valid ({error})") from error
    if created_by != pylock.CREATED_BY or not re.fullmatch(r"[1-9]\d*", schema):
        raise pylock.bad_file(path, text, "created-by", "this file was not written by flowkiln")
    if int(schema) > SCHEMA:
        message = f"{path} has schema {schema}; this flowkiln reads up to {SCHEMA}"
        raise FormatTooNew(message, hint="Upgrade flowkiln: `pip install --upgrade flowkiln`.")
    found: dict[Platform, list[LockedConda]] = {platform: [] for platform in platforms}
    for entry in document["package"]:
        try:
            platform, package = _package(entry, kept)
            found[platform].append(package)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = str(entry.get("name", "?")) if isinstance(entry, dict) else "?"
            raise pylock.bad_file(
                path, text, f"name: {quoted(name)}", f"the entry of {name!r} is not valid"
            ) from error
    for packages in found.values():
        packages.sort(key=lambda one: one.name)
        if len({one.name for one in packages}) != len(packages):
            raise BadLockFile(f"{path}: a package is listed twice for one platform", hint=pylock.AGAIN)
    return CondaLock(channels=channels, platforms={one: tuple(found[one]) for one in sorted(found)})


def load(text: str, path: Path) -> dict[str, Any]:
    """The document in ``text``, of version 1 with a list of packages. Raises ``BadLockFile``."""
    from flowkiln.envs import yamltext  # noqa: PLC0415  most locks have no conda packages

    try:
        document = yamltext.load(text)
    except yamltext.NotYaml as error:
        pylock.refuse_conflict(text, path)
        message = f"{path}, line {error.line}: not valid YAML: {error.what}"
        raise BadLockFile(message, hint=pylock.AGAIN) from error
    if not isinstance(document, dict) or document.get("version") != "1":
        raise pylock.bad_file(path, text, "version:", "this is no conda-lock.yml of version 1")
    document["package"] = document.get("package") or []
    if not isinstance(document["package"], list):
        raise pylock.bad_file(path, text, "package:", "package is no list")
    return document


def _package(entry: dict[str, Any], kept: Mapping[str, str]) -> tuple[Platform, LockedConda]:
    if entry["manager"] != "conda":
        raise ValueError(entry["manager"])
    return platform_of(_text(entry, "platform")), conda_package(entry, kept)


def conda_package(entry: Mapping[str, Any], kept: Mapping[str, str]) -> LockedConda:
    """A conda entry of any conda-lock.yml, with what flowkiln's ``custom_metadata`` say of it.

    Raises ``KeyError``, ``TypeError``, ``ValueError`` and ``AttributeError`` for one that is not valid.
    """
    url, sha256, md5 = _text(entry, "url"), _text(entry["hash"], "sha256"), _text(entry["hash"], "md5")
    extras = _EXTRAS.fullmatch(kept.get(_key(entry["platform"], url), ""))
    if not digests.is_digest(f"sha256:{sha256}") or not _MD5.fullmatch(md5) or extras is None:
        raise ValueError(url)
    dependencies = {name: spec or "" for name, spec in (entry.get("dependencies") or {}).items()}
    provides = (pair.split(" ") for pair in (extras["provides"] or "").split(", ") if pair)
    package = LockedConda(
        name=_text(entry, "name"),
        version=_text(entry, "version"),
        build=_text(entry, "build"),
        filename=file_name(url),
        url=url,
        sha256=sha256,
        md5=md5,
        size=int(extras["size"]) if extras["size"] else None,
        depends=tuple(json.loads(extras["depends"])) if extras["depends"] else _specs(dependencies),
        provides=tuple((name, version) for name, version in provides),
    )
    if package.subdir not in (entry["platform"], NOARCH):
        raise ValueError(url)
    return package


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value:
        raise TypeError(value)
    return value
