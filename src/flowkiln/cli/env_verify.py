"""``flowkiln env verify``: whether installed environments and images are what was locked."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkiln._base.errors import ExitCode
from flowkiln._base.report import counted
from flowkiln.cli.errors import BadUsage
from flowkiln.cli.options import session, verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flowkiln._base.errors import FlowkilnError
    from flowkiln._base.json import JSONObject
    from flowkiln.cli.environments import Environment
    from flowkiln.cli.output import Session
    from flowkiln.cli.targets import ImageTarget
    from flowkiln.wiring.verifying import Checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An environment with what was found: ``ok``, ``changed``, ``repaired`` or ``not installed``."""

    name: str
    steps: tuple[str, ...]
    state: str
    path: str | None = None
    text: str | None = None

    def line(self) -> str:
        """The finding for people; ``text`` belongs to the error."""
        used = f" ({', '.join(self.steps)})" if self.steps and self.steps != (self.name,) else ""
        return f"{self.name}{used}: {self.state}" + (f"   {self.path}" if self.path else "")


@verb(
    "verify",
    example="flowkiln env verify flow.py\nflowkiln env verify --full flow.py:fit\n"
    "flowkiln env verify registry.example.com/team/flows@sha256:... --lock flow.py",
)
@click.argument("envs", nargs=-1, required=True)
@click.option("--full", is_flag=True, help="Hash every byte instead of comparing what `stat` says.")
@click.option("--repair", is_flag=True, help="Make an environment that fails anew; install one that is not here.")
@click.option("--lock", metavar="ENV", help="Hold images against the locks of this flow or folder, too.")
@click.pass_context
def verify(context: click.Context, *, envs: tuple[str, ...], full: bool, repair: bool, lock: str | None) -> int:
    """Verify the environments of ENVS on this machine, every one of them, or images.

    An image is REPOSITORY@sha256:..., HOST/REPOSITORY:TAG, flowkiln:fk-... of the local engine, or
    oci:FOLDER[:NAME]. Every file of its environment is hashed, and compared with what the image says it holds;
    with --lock, with what the locked wheels install. Bytecode and flowkiln's own part are not compared: the digest
    of the image stands for them. Exit code 17 when one is not what was locked, or when it is not installed.
    """
    from flowkiln.cli import problems, targets

    speaker = session(context)
    parsed = {text: targets.parse(text) for text in envs}
    images = {text: one for text, one in parsed.items() if isinstance(one, targets.ImageTarget)}
    texts = [text for text in parsed if text not in images]
    _check_options(bool(images), texts, repair=repair, lock=lock)
    here = _Here.of(texts, speaker, full=full, repair=repair)
    looked = _Images.of(images, lock, speaker)
    document = {**here.to_json(), **looked.to_json(), "level": "full" if full or not texts else "stat"}
    lines = [*here.lines(), *looked.lines()]
    error = here.error() or looked.error()
    if error is None:
        speaker.result(document, lines)
        return ExitCode.OK
    if speaker.json:
        speaker.result({**document, "error": error.to_json()}, ())
    else:
        speaker.result(document, lines)
        for one in (here.error(), looked.error()):
            if one is not None:
                problems.show(one, speaker)
    return error.exit_code


def _check_options(images: bool, texts: Sequence[str], *, repair: bool, lock: str | None) -> None:
    if repair and images:
        message = "--repair makes environments of this machine anew, no images"
        raise BadUsage(message, hint="`flowkiln env bake ENV --push --rebuild` bakes and pushes an image again.")
    if lock is not None and not images:
        message = f"--lock {lock}: {', '.join(texts)} is held against its own lock already"
        raise BadUsage(message, hint="--lock is for images.")


@dataclass(frozen=True, slots=True)
class _Here:
    """What was found of environments on this machine."""

    texts: Sequence[str]
    findings: list[Finding]

    @classmethod
    def of(cls, texts: Sequence[str], speaker: Session, *, full: bool, repair: bool) -> _Here:
        from flowkiln.cli import environments

        found = [
            _finding(one, text, speaker, full=full, repair=repair)
            for text in texts
            for one in environments.named(text, speaker)
        ]
        return cls(texts, found)

    def to_json(self) -> JSONObject:
        return {"environments": [asdict(one) for one in self.findings]}

    def lines(self) -> list[str]:
        return [one.line() for one in self.findings]

    def error(self) -> FlowkilnError | None:
        """What is not as it was locked; None when all is."""
        from flowkiln.envs.installerrors import EnvironmentMismatch

        bad = [one for one in self.findings if one.state not in ("ok", "repaired")]
        if not bad:
            return None
        message = f"{len(bad)} of {counted(len(self.findings), 'environment')} not as locked: " + ", ".join(
            f"{one.name} ({one.state})" for one in bad
        )
        message = "\n".join([message, *(one.text for one in bad if one.text)])
        hint = f"`flowkiln env verify --repair {' '.join(self.texts)}` makes them anew."
        step = next((one.steps[0] for one in bad if one.steps), None)
        return EnvironmentMismatch(message, hint=hint, step=step)


@dataclass(frozen=True, slots=True)
class _Images:
    """What was found of images."""

    checked: list[Checked]

    @classmethod
    def of(cls, targets: Mapping[str, ImageTarget], lock: str | None, speaker: Session) -> _Images:
        if not targets:
            return cls([])
        from flowkiln.cli import images

        return cls([one for each in targets.values() for one in images.checked(each, lock, speaker, Path.cwd())])

    def to_json(self) -> JSONObject:
        if not self.checked:
            return {"images": []}
        from flowkiln.cli import images

        return {"images": [images.document(one) for one in self.checked]}

    def lines(self) -> list[str]:
        if not self.checked:
            return []
        from flowkiln.cli import images

        return [line for one in self.checked for line in images.lines(one)]

    def error(self) -> FlowkilnError | None:
        """What images are not what they say, or not what was locked; None when all are."""
        from flowkiln.envs.installerrors import EnvironmentMismatch

        bad = [one for one in self.checked if not one.verdict.sound]
        if not bad:
            return None
        are = "is not what it" if len(bad) == 1 else "are not what they"
        message = f"{len(bad)} of {counted(len(self.checked), 'image')} {are} should be"
        message = "\n".join([message, *(f"{one.name} ({one.platform}):\n{one.verdict.text()}" for one in bad)])
        hint = "Do not use what differs; `flowkiln env bake ENV --push --rebuild` bakes it anew."
        return EnvironmentMismatch(message, hint=hint, data={"images": [one.name for one in bad]})


def _finding(one: Environment, text: str, speaker: Session, *, full: bool, repair: bool) -> Finding:
    from flowkiln.cli import environments
    from flowkiln.envs.installerrors import EnvironmentMismatch
    from flowkiln.envs.proof import verify as prove

    tree = environments.installed(one, text, speaker)
    state, told = "not installed", None
    if tree is not None:
        try:
            prove(tree.root, tree.env_id, tree.tree_digest, "full" if full else "stat")
        except EnvironmentMismatch as error:
            state, told = "changed", error.message
        else:
            state = "ok"
    if repair and state != "ok":
        tree, state, told = environments.repaired(one, text, speaker), "repaired", None
    path = str(tree.root) if tree is not None else None
    return Finding(name=one.name, steps=one.steps, state=state, path=path, text=told)
