"""Base images: made once from Debian packages, pushed to the plain registry when they are not there."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tests.stack import debian
from tests.stack.debian import EDITION
from tests.stack.layouts import Variant, write_layout
from tests.stack.packages import call, machine
from tests.stack.place import CannotRun, built, locked
from tests.stack.registries import Registry, start_registry
from tests.stack.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Base = Literal[
    "slim-python:3.11",
    "slim-python:3.13",
    "debian-python:3.11",
    "debian-python:3.13",
    "no-python:bookworm",
    "distroless-python:3.11",
    "compiler-python:3.11",
]

_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """How one base is made and where it is published."""

    repository: str
    tag: str
    variants: Callable[[], list[Variant]]
    as_index: bool = False


def _slim(python: str, suite: str, *architectures: str) -> list[Variant]:
    made = []
    for architecture in architectures:
        version, layer = debian.local_python(suite, python, architecture)
        environment = {"PATH": f"/usr/local/bin:{_SYSTEM}", "LANG": "C.UTF-8", "PYTHON_VERSION": version}
        layers = [debian.system(suite, architecture), layer]
        made.append(Variant(architecture, layers, _config(environment, Cmd=["python3"])))
    return made


def _packaged(suite: str) -> list[Variant]:
    config = _config({"PATH": _SYSTEM}, Cmd=["bash"])
    return [Variant(machine(), [debian.with_python(suite)], config)]


def _compiler(suite: str) -> list[Variant]:
    return [Variant(machine(), [debian.with_compiler(suite)], _config({"PATH": _SYSTEM}, Cmd=["bash"]))]


def _bare(suite: str) -> list[Variant]:
    return [Variant(machine(), [debian.system(suite, machine())], _config({"PATH": _SYSTEM}, Cmd=["bash"]))]


def _distroless(suite: str, python: str) -> list[Variant]:
    config = _config(
        {"PATH": _SYSTEM, "LANG": "C.UTF-8"},
        User="65532",
        WorkingDir="/home/nonroot",
        Entrypoint=["/usr/bin/python3"],
    )
    return [Variant(machine(), [debian.distroless(suite, python)], config)]


def _config(environment: Mapping[str, str], **more: Any) -> dict[str, Any]:
    return {"Env": [f"{name}={value}" for name, value in environment.items()], **more}


RECIPES: dict[Base, Recipe] = {
    "slim-python:3.11": Recipe(
        "library/python",
        "3.11-slim",
        lambda: _slim("3.11", "bookworm", "amd64", "arm64"),
        as_index=True,
    ),
    "slim-python:3.13": Recipe("library/python", "3.13-slim", lambda: _slim("3.13", "trixie", machine())),
    "debian-python:3.11": Recipe("debian-python", "3.11", lambda: _packaged("bookworm")),
    "debian-python:3.13": Recipe("debian-python", "3.13", lambda: _packaged("trixie")),
    "compiler-python:3.11": Recipe("compiler-python", "3.11", lambda: _compiler("bookworm")),
    "no-python:bookworm": Recipe("no-python", "bookworm", lambda: _bare("bookworm")),
    "distroless-python:3.11": Recipe("distroless-python", "3.11", lambda: _distroless("bookworm", "3.11")),
}


def publish_base(name: Base) -> str:
    """The full reference of a base that the plain registry has, made and pushed when it is missing."""
    recipe = RECIPES[name]
    where = start_registry("plain")
    with locked(f"base-{name}"):
        layout = built("bases", EDITION, name.replace(":", "-"))
        if not (layout / "digest").exists():
            digest = write_layout(layout, recipe.variants(), as_index=recipe.as_index)
            (layout / "digest").write_text(digest, encoding="ascii")
        wanted = (layout / "digest").read_text(encoding="ascii")
        if _published(where, recipe) != wanted:
            _push(layout, where, recipe)
            if (found := _published(where, recipe)) != wanted:
                raise CannotRun(name, f"the registry has {found} after a push of {wanted}")
    return f"{where.address}/{recipe.repository}:{recipe.tag}"


def _push(layout: Path, where: Registry, recipe: Recipe) -> None:
    skopeo = str(find_tool("skopeo"))
    target = f"docker://{where.address}/{recipe.repository}:{recipe.tag}"
    flags = ["--all", "--preserve-digests", "--dest-tls-verify=false", "--insecure-policy"]
    call([skopeo, "copy", *flags, f"oci:{layout}:base", target], "the push of a base")


def _published(where: Registry, recipe: Recipe) -> str | None:
    """The digest that the registry has for the tag."""
    request = urllib.request.Request(
        f"{where.url}/v2/{recipe.repository}/manifests/{recipe.tag}",
        method="HEAD",
        headers={
            "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json",
        },
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except urllib.error.HTTPError as error:
        error.close()
        return None
