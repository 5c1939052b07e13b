"""Locks in the forms that other tools read. Each text depends on the lock alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from flowkiln.envs import condalock
from flowkiln.envs import pylock as pylock_format
from flowkiln.envs.condalock import quoted
from flowkiln.envs.lockfileerrors import NotExportable
from flowkiln.envs.subdirs import subdir_of

if TYPE_CHECKING:
    from flowkiln.envs.lock import EnvLock, LockedConda, LockedWheel, PlatformLock

Form = Literal["pylock", "conda-lock", "explicit", "requirements", "environment"]
FORMS = get_args(Form)
_CONDA_FORGE = "conda-forge"


def usual(part: PlatformLock) -> Form:
    """The form that holds all of ``part`` and that most tools read."""
    return "conda-lock" if part.conda else "requirements"


def export(lock: EnvLock, part: PlatformLock, form: Form) -> str:
    """``part`` of ``lock`` in that form; as conda-lock.yml, all of ``lock``.

    Raises ``NotExportable`` and ``NoMd5``.
    """
    if form == "conda-lock":
        return conda_lock(lock)
    if form == "environment":
        return environment(lock, part)
    return {"explicit": explicit, "requirements": requirements, "pylock": pylock}[form](part)


def left_out(part: PlatformLock, form: Form) -> int:
    """The number of packages of ``part`` that the form has no place for."""
    return len(part.conda) if form in ("requirements", "pylock") else 0


def pylock(part: PlatformLock) -> str:
    """The wheels of a platform as PEP 751 has them."""
    _require_wheels(part, "pylock")
    return pylock_format.serialise(part.python, part.wheels)


def requirements(part: PlatformLock) -> str:
    """The wheels of a platform as a requirements file with hashes; of what was built, those of its sources."""
    _require_wheels(part, "requirements")
    lines = [f"# Python {part.python}, {part.platform}"]
    unhashed = [wheel.name for wheel in part.wheels if wheel.published is None]
    if unhashed:
        names = ", ".join(sorted(unhashed))
        lines.append(f"# without hashes, as pip takes all or none: {names} came from a repository or a folder")
        return "\n".join([*lines, *map(_requirement, _wheels(part))]) + "\n"
    hashes = [(wheel, wheel.published[1]) for wheel in _wheels(part) if wheel.published is not None]
    lines += [f"{_requirement(wheel)} \\\n    --hash=sha256:{sha256}" for wheel, sha256 in hashes]
    return "\n".join(lines) + "\n"


def explicit(part: PlatformLock) -> str:
    """The URLs of a platform's packages for ``conda create --file``, what is needed first.

    Wheels stand in the comments that conda-lock and micromamba install.
    """
    _require_conda(part, "explicit")
    condalock.require_md5(part.conda)
    lines = [f"# Python {part.python}, {part.platform}", f"# platform: {subdir_of(part.platform)}", "@EXPLICIT"]
    lines += [f"{one.url}#{one.md5}" for one in _in_order(part)]
    lines += [f"# pip {one.name} @ {_file(one)}" for one in _wheels(part)]
    return "\n".join(lines) + "\n"


def conda_lock(lock: EnvLock) -> str:
    """The whole lock as a conda-lock.yml, the wheels as packages of pip."""
    for part in lock.platforms:
        _require_conda(part, "conda-lock")
    return condalock.exported(lock)


def environment(lock: EnvLock, part: PlatformLock) -> str:
    """A platform as an ``environment.yml`` with every version, build and hash of a wheel pinned."""
    pinned = [f"{one.name}={one.version}={one.build}" for one in sorted(part.conda, key=lambda one: one.name)]
    names = {one.name for one in part.conda}
    pinned += [] if names else [f"python={part.python}"]
    pinned += ["pip"] if part.wheels and "pip" not in names else []
    files = [one.published for one in _wheels(part)]
    hashes = [f" --hash=sha256:{file[1]}" for file in files if file is not None]
    hashes = hashes if len(hashes) == len(files) else [""] * len(files)
    wheels = [_requirement(one) + sha256 for one, sha256 in zip(_wheels(part), hashes, strict=True)]
    channels = [*(lock.channels or (_CONDA_FORGE,)), "nodefaults"]
    lines = [f"# {part.platform}", f"name: {quoted(lock.name)}"]
    lines += ["channels:", *(f"  - {quoted(one)}" for one in channels)]
    lines += ["dependencies:", *(f"  - {quoted(one)}" for one in pinned)]
    lines += ["  - pip:", *(f"      - {quoted(one)}" for one in wheels)] if wheels else []
    return "\n".join(lines) + "\n"


def _file(wheel: LockedWheel) -> str:
    """The URL of a wheel, or of what it was built of, with its hash. Raises ``NotExportable`` for no file."""
    if wheel.published is None:
        message = f"{wheel.name} was built of {wheel.url}, which is no file that this form can name"
        raise NotExportable(message, hint="Use --format pylock or requirements.")
    return "#sha256=".join(wheel.published)


def _requirement(wheel: LockedWheel) -> str:
    """What to ask pip for, without a hash."""
    source = wheel.build.source if wheel.build is not None else None
    if source is None or source.kind == "sdist":
        return f"{wheel.name}=={wheel.version}"
    inside = f"#subdirectory={source.subdirectory}" if source.subdirectory else ""
    if source.kind == "git":
        return f"{wheel.name} @ git+{source.url}@{source.commit}{inside}"
    return f"{wheel.name} @ {source.url}{inside}" if source.kind == "archive" else f"./{source.url}"


def _wheels(part: PlatformLock) -> list[LockedWheel]:
    return sorted(part.wheels, key=lambda one: one.name)


def _require_wheels(part: PlatformLock, form: str) -> None:
    if part.conda and not part.wheels:
        message = f"all packages of the environment come from conda, which the form {form!r} cannot name"
        raise NotExportable(message, hint="Use --format conda-lock, explicit or environment.")


def _require_conda(part: PlatformLock, form: str) -> None:
    if not part.conda:
        message = f"the environment has no conda packages on {part.platform}, and the form {form!r} none but these"
        raise NotExportable(message, hint="Use --format requirements, pylock or environment.")


def _in_order(part: PlatformLock) -> list[LockedConda]:
    """The conda packages, each after those it needs, else by name; where they need each other, as they are met."""
    by_name = {one.name: one for one in sorted(part.conda, key=lambda one: one.name)}
    placed: dict[str, LockedConda] = {}
    seen: set[str] = set()
    pending = [(name, False) for name in reversed(by_name)]
    while pending:
        name, done = pending.pop()
        if done:
            placed[name] = by_name[name]
        elif name not in seen:
            seen.add(name)
            pending.append((name, True))
            needs = sorted({condalock.split(spec)[0] for spec in by_name[name].depends} & by_name.keys())
            pending += [(need, False) for need in reversed(needs)]
    return list(placed.values())
