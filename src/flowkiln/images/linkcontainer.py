"""Link scripts in a container: the environment's files in, the scripts in their order, what they left out.

The container has no mounts, no capabilities and, unless the user asks for one, no network; it is removed with all
that the scripts wrote. What they did below the prefix is read from outside of it, when nothing in it runs any more.
"""

from __future__ import annotations

import secrets
import tarfile
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flowkiln._base import redact
from flowkiln.envs import hostbuild
from flowkiln.envs.builderrors import BadLinking, LinkScriptFailed, LinkScriptTimeout
from flowkiln.images import archive, buildcontainer, linktree

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from flowkiln._base.json import JSONObject
    from flowkiln._base.platforms import Platform
    from flowkiln.images.archive import Member
    from flowkiln.images.buildcontainer import Containers
    from flowkiln.images.linktree import Left

FOLDER = "/flowkiln-link"
_BEGINS = "== "
_LINES = 20
_SHOWN = 5
_MOST = 64 << 30
"""Bytes of an environment with what its scripts left, above which something else went on."""
_SCRIPT = f"""\
shell=sh
command -v bash > /dev/null 2>&1 && shell=bash
while read -r kind name version number; do
  echo "{_BEGINS}$kind of $name $version"
  PKG_NAME="$name" PKG_VERSION="$version" PKG_BUILDNUM="$number" \\
    "$shell" "$PREFIX/bin/.$name-$kind.sh" < /dev/null || exit $?
done < {FOLDER}/scripts
"""


class Script(NamedTuple):
    """A script of a package: ``pre-link`` or ``post-link``, as conda names them."""

    kind: str
    name: str
    version: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkJob:
    """An environment's files by path, below the prefix of ``linktree``, and the scripts that are to run in it.

    ``label`` names it for people; ``log`` gets what the scripts say, ``folder`` is an empty one of this machine.
    """

    label: str
    platform: Platform
    python: str
    members: Mapping[str, Member]
    scripts: Sequence[Script]
    log: Path
    folder: Path


class LinkRunner:
    """Runs link scripts in containers of one engine.

    ``image_of`` has the engine hold the image that the scripts of a job run in, and names it; ``seconds`` is how
    long all scripts of an environment may take; ``say`` tells people something.
    """

    def __init__(
        self,
        engine: Containers,
        image_of: Callable[[LinkJob, str], str],
        *,
        seconds: float,
        network: bool,
        say: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._image_of = image_of
        self._seconds = seconds
        self._network = network
        self._say = say

    def run(self, job: LinkJob, where: str) -> Left:
        """What the scripts left. Raises ``BuildError`` and the errors of engines, registries and baking."""
        image = self._image_of(job, where)
        container = self._engine.create(f"flowkiln-link-{secrets.token_hex(6)}", self._spec(image))
        try:
            members = archive.complete([*job.members.values(), *_own(job)])
            self._engine.put_archive(container, "/", lambda sink: archive.write(members, sink))
            self._engine.start(container)
            code = buildcontainer.wait(self._engine, container, self._seconds)
            said = redact.text(buildcontainer.said(self._engine.logs(container, follow=False)))
            log = hostbuild.written_log(job.log, said)
            self._judge(job, code, said, str(log) if log else None)
            left = self._left(job, container)
            self._tell_outside(job, container)
            return left
        finally:
            self._engine.remove(container)

    def _judge(self, job: LinkJob, code: int | None, said: str, log: str | None) -> None:
        """Guarantees that all scripts ended well."""
        if code == 0:
            return
        lines = [line.rstrip() for line in said.splitlines() if line.strip()]
        begun = [line.removeprefix(_BEGINS) for line in lines if line.startswith(_BEGINS)]
        which = begun[-1] if begun else "the first script"
        last = [line for line in lines if not line.startswith(_BEGINS)][-_LINES:]
        tail = ":\n" + "\n".join(last) if last else ", and said nothing"
        if code is None:
            message = f"{job.label}: link scripts were not done after {self._seconds:.0f} s, at {which}{tail}"
            raise LinkScriptTimeout(message, log=log)
        message = f"{job.label}: {which} failed (exit code {code}){tail}"
        network = not self._network and any("name resolution" in line or "resolve host" in line for line in last)
        hint = (
            "Link scripts have no network. The setting build.network = true gives it to them." if network else None
        )
        raise LinkScriptFailed(message, log=log, hint=hint)

    def _left(self, job: LinkJob, container: str) -> Left:
        with tempfile.TemporaryFile(dir=job.folder) as packed:
            have = 0
            for piece in self._engine.get_archive(container, linktree.PREFIX):
                have += len(piece)
                if have > _MOST:
                    raise BadLinking(f"{job.label}: its link scripts left more than {_MOST >> 30} GiB")
                packed.write(piece)
            packed.seek(0)
            try:
                with tarfile.open(fileobj=packed, mode="r|", encoding="utf-8") as opened:
                    return linktree.compared(job.members, ((opened, info) for info in opened), job.folder)
            except (tarfile.TarError, KeyError) as error:
                message = f"{job.label}: what its link scripts left cannot be read: {error}"
                raise BadLinking(message) from error

    def _tell_outside(self, job: LinkJob, container: str) -> None:
        """Says what scripts changed elsewhere, which is gone with the container."""
        own = (linktree.PREFIX, FOLDER)
        paths = sorted(path for path in self._engine.changes(container) if not path.startswith(own))
        above = {path.rpartition("/")[0] for path in paths} | {one.rpartition("/")[0] for one in own}
        outside = [path for path in paths if path not in above]
        if outside:
            more = f" and {len(outside) - _SHOWN} more" if len(outside) > _SHOWN else ""
            shown = ", ".join(outside[:_SHOWN])
            self._say(f"{job.label}: link scripts also changed {shown}{more}, outside of the environment: not kept")

    def _spec(self, image: str) -> JSONObject:
        prefix = linktree.PREFIX
        variables = {
            "PREFIX": prefix,
            "CONDA_PREFIX": prefix,
            "ROOT_PREFIX": prefix,
            "PATH": f"{prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": f"{FOLDER}/home",
            "TMPDIR": f"{FOLDER}/tmp",  # noqa: S108  a folder of the container
            "SOURCE_DATE_EPOCH": str(archive.TIME),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "LC_ALL": "C.UTF-8",
            "TZ": "UTC",
        }
        return {
            "Image": image,
            "Entrypoint": ["/bin/sh"],
            "Cmd": [f"{FOLDER}/run.sh"],
            "User": "0:0",
            "WorkingDir": "/",
            "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
            **buildcontainer.confined("link", network=self._network, podman=self._engine.podman),
        }


def _own(job: LinkJob) -> list[Member]:
    """What lies beside the environment: the script that calls the others, their list, folders to write in."""
    base = FOLDER.lstrip("/")
    listed = "".join(f"{one.kind} {one.name} {one.version} {one.number}\n" for one in job.scripts)
    return [
        archive.made(f"{base}/run.sh", _SCRIPT.encode()),
        archive.made(f"{base}/scripts", listed.encode()),
        archive.folder(f"{base}/home"),
        archive.folder(f"{base}/tmp"),  # noqa: S108  a folder of the container
    ]
