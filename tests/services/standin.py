"""A stand-in for conda, mamba and micromamba: an executable that answers what conda-lock asks of them.

It solves for real, with rattler over the channels that it is given, for the platform and the virtual packages that
the variables name, and installs nothing. In a test::

    program = stand_in(tmp_path / "bin" / "micromamba")
    ... conda-lock lock --conda program ...
    assert calls(program)[0]["arguments"][0] == "create"
    behave(program, fail="no space left")    # or sleep=60, instead={"demo >=2": "demo <2"}
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def stand_in(path: Path) -> Path:
    """An executable at ``path``, which is the solver that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    script = f"""\
        #!{sys.executable}
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests.services.standin import main
        main(sys.argv[1:], sys.argv[0])
        """
    path.write_text(textwrap.dedent(script))
    path.chmod(0o755)
    return path


def behave(program: Path, **how: Any) -> None:
    """Has the program from now on ``sleep``, ``fail`` with a text, or plan other packages ``instead``.

    With ``moves`` it moves that package alone in what is installed.
    """
    program.with_suffix(".behave").write_text(json.dumps(how))


def calls(program: Path) -> list[dict[str, Any]]:
    """The arguments and variables of each call so far."""
    path = program.with_suffix(".calls")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def ended(pid: int) -> bool:
    """Whether a process ends within some seconds; it need not have been waited for."""
    for _ in range(100):
        done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if done.stdout.strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.05)
    return False


def main(arguments: list[str], script: str) -> None:
    """Answers one call."""

    program = Path(script).resolve()
    how = {}
    if program.with_suffix(".behave").exists():
        how = json.loads(program.with_suffix(".behave").read_text())
    with program.with_suffix(".calls").open("a") as log:
        log.write(json.dumps({"arguments": arguments, "environ": dict(os.environ), "pid": os.getpid()}) + "\n")
    micromamba = Path(sys.argv[0]).name == "micromamba"
    if arguments == ["--version"]:
        _say("2.3.0" if micromamba else "conda 25.9.0")
        return
    if "sleep" in how:
        time.sleep(how["sleep"])
    if "fail" in how:
        sys.exit(how["fail"])
    if arguments[0] == "list":
        _say(json.dumps([_linked(one) for one in _installed(arguments[arguments.index("-p") + 1])]))
    elif arguments[0] in ("create", "install", "update"):
        _plan(arguments, how, micromamba=micromamba)
    else:
        sys.exit(f"the stand-in does not know {arguments[0]}")


def _plan(arguments: list[str], how: dict[str, Any], *, micromamba: bool) -> None:
    """Prints the plan of a dry run, or why there is none, as the program would."""
    import asyncio  # noqa: PLC0415

    assert "--dry-run" in arguments
    assert "--override-channels" in arguments
    options: dict[str, list[str]] = {"--channel": [], "--prefix": [], "-p": []}
    specs: list[str] = []
    words = iter(arguments[1:])
    for word in words:
        if word in options:
            options[word].append(next(words))
        elif not word.startswith("--"):
            specs.append(word)
    specs = [how.get("instead", {}).get(spec, spec) for spec in specs]
    installed = _installed(options["-p"][0]) if options["-p"] else []
    try:
        records = asyncio.run(_solve(options["--channel"], specs, installed))
    except Exception as error:
        if type(error).__name__ != "SolverError":
            raise
        name = "LibMambaUnsatisfiableError"
        said: dict[str, Any] = {
            "success": False,
            "message": str(error),
            "exception_name": name,
            "error": str(error),
        }
        if micromamba:
            said = {"success": False, "solver_problems": str(error).splitlines()}
        _say(json.dumps(said))
        _end(1)
    before = {(one["name"], one["fn"]) for one in installed}
    fresh = [one for one in records if (one["name"], one["fn"]) not in before]
    if installed and "moves" in how:
        fresh = [one for one in fresh if one["name"] == how["moves"]]
    _say(json.dumps({"success": True, "actions": {"FETCH": fresh, "LINK": [_linked(one) for one in fresh]}}))
    _end(0)


async def _solve(channels: list[str], specs: list[str], installed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of a solve; what is installed and not named stays where it can."""
    import warnings  # noqa: PLC0415

    import rattler  # noqa: PLC0415

    virtual = [rattler.GenericVirtualPackage(_name("__unix"), rattler.Version("0"), rattler.BuildString("0"))]
    for variable, text in os.environ.items():
        if variable.startswith("CONDA_OVERRIDE_") and text:
            name = _name("__" + variable.removeprefix("CONDA_OVERRIDE_").lower())
            version, build = ("1", text) if name.normalized == "__archspec" else (text, "0")
            virtual.append(
                rattler.GenericVirtualPackage(name, rattler.Version(version), rattler.BuildString(build))
            )
    gateway = rattler.Gateway(cache_dir=Path(os.environ["CONDA_PKGS_DIRS"]) / "repodata")
    sources = [rattler.Channel(url) for url in channels]
    platforms: Any = [os.environ["CONDA_SUBDIR"], "noarch"]
    wanted = [rattler.MatchSpec(spec) for spec in specs]
    named = {spec.name.normalized for spec in wanted}
    kept = {one["fn"] for one in installed if one["name"] not in named}
    rest = sorted({one["name"] for one in installed} - named)
    locked: list[Any] = []
    if rest:
        listed = await gateway.query(sources, platforms, rest, recursive=False)
        locked = [record for records in listed for record in records if record.file_name in kept]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = await rattler.solve(
            sources,
            [*wanted, *rest],
            gateway=gateway,
            platforms=platforms,
            locked_packages=locked,
            virtual_packages=virtual,
            channel_priority=rattler.ChannelPriority.Strict,
        )
    return [json.loads(record.to_json()) for record in found]


def _name(text: str) -> Any:
    import rattler  # noqa: PLC0415

    return rattler.PackageName(text)


def _installed(prefix: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(prefix).glob("conda-meta/*.json"))]


def _linked(one: dict[str, Any]) -> dict[str, Any]:
    """A package as it is listed: without its file name, as conda does it."""
    name = f"{one['name']}-{one['version']}-{one['build']}"
    return {
        **{key: one[key] for key in ("name", "version", "build_number", "channel")},
        "build_string": one["build"],
        "base_url": one["channel"],
        "dist_name": name,
        "platform": one["subdir"],
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _end(code: int) -> None:
    """Ends the process at once: threads of rattler now and then crash one that is shut down in order."""

    sys.stdout.flush()
    os._exit(code)
