from __future__ import annotations

import csv
import hashlib
import io
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base import json as base_json
from flowkiln.envs import installer
from flowkiln.envs.condapackage import CondaFile, CondaPackage
from flowkiln.envs.installerrors import HostileConda, PathOwnedTwice
from flowkiln.envs.wheel import EntryPoint, Wheel, WheelFile

if TYPE_CHECKING:
    from flowkiln.envs.installer import Unpacked
    from flowkiln.envs.wheel import Scheme

SITE = "lib/python3.11/site-packages"


def file(
    path: str,
    content: str = "x",
    *,
    scheme: Scheme = "site",
    executable: bool = False,
    launcher: bool = False,
) -> WheelFile:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return WheelFile(scheme, path, f"{scheme}/{path}", len(content), digest, executable, launcher)


def made(name: str, *files: WheelFile, points: tuple[EntryPoint, ...] = ()) -> Wheel:
    return Wheel(
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        name=name,
        version="1.0",
        filename=f"{name}-1.0-py3-none-any.whl",
        dist_info=f"{name}-1.0.dist-info",
        files=(*files, file(f"{name}-1.0.dist-info/INSTALLER", "flowkiln\n")),
        entry_points=points,
    )


def installed(*wheels: Unpacked, **options: object) -> installer.Tree:
    return installer.combine([installer.package(wheel, "3.11") for wheel in wheels], **options)  # type: ignore[arg-type]


def content(tree: installer.Tree, path: str) -> bytes:
    source = next(entry.source for entry, _ in tree.owners if entry.path == path)
    assert isinstance(source, bytes)
    return source


def test_every_scheme_has_its_place() -> None:
    wheel = made(
        "pkg",
        file("pkg/a.py"),
        file("tool", scheme="scripts", executable=True),
        file("share/x", scheme="data"),
        file("pkg.h", scheme="headers"),
        file("old", scheme="scripts", launcher=True),
        points=(EntryPoint("run", "pkg", "main", False),),
    )
    package = installer.package(wheel, "3.11")
    assert {(entry.path, entry.mode) for entry in package.entries} == {
        (f"{SITE}/pkg/a.py", 0o444),
        ("bin/tool", 0o555),
        ("share/x", 0o444),
        ("include/site/python3.11/pkg/pkg.h", 0o444),
        (f"{SITE}/pkg-1.0.dist-info/INSTALLER", 0o444),
        (f"{SITE}/pkg-1.0.dist-info/RECORD", 0o444),
    }
    assert [entry.path for entry in package.entries] == sorted(entry.path for entry in package.entries)
    assert [launcher.path for launcher in package.launchers] == ["bin/old", "bin/run"]


def test_record_lists_everything_with_launchers_and_itself_blank() -> None:
    wheel = made(
        "pkg",
        file("pkg/a,b.py"),
        file("share/x", scheme="data"),
        points=(EntryPoint("run", "pkg", "main", False),),
    )
    tree = installed(wheel)
    text = content(tree, f"{SITE}/pkg-1.0.dist-info/RECORD").decode()
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(text))}
    assert set(rows) == {
        "pkg/a,b.py",
        "../../../share/x",
        "../../../bin/run",
        "pkg-1.0.dist-info/INSTALLER",
        "pkg-1.0.dist-info/RECORD",
    }
    assert rows["../../../bin/run"] == rows["pkg-1.0.dist-info/RECORD"] == ["", ""]
    assert rows["pkg/a,b.py"] == ["sha256=LXEWQrcmsEQBYnyp-6wy9chTD7GQPMTbAiWHF5IaSIE", "1"]
    assert "\r" not in text


def test_tree_digest_is_a_golden_value() -> None:
    tree = installed(made("pkg", file("pkg/a.py", "x")))
    document = json.loads(tree.document)
    assert document["schema"] == 1
    assert document["files"] == sorted(document["files"])
    assert tree.tree_digest == "sha256:" + hashlib.sha256(tree.document).hexdigest()
    assert tree.tree_digest == GOLDEN


GOLDEN = "sha256:6168a71ec16eac93a58fb24963633c5e5fad3e1d891e6ab9d6e4268a5bb31a82"


def test_record_is_the_same_for_every_python_unless_headers_have_its_name() -> None:
    plain = made("pkg", file("pkg/a.py"), file("share/x", scheme="data"))
    assert installer.record_of(plain) == content(installed(plain), f"{SITE}/pkg-1.0.dist-info/RECORD")
    assert installer.record_of(made("pkg", file("pkg.h", scheme="headers"))) is None


def test_a_record_of_the_store_is_not_made_again() -> None:
    wheel = made("pkg", file("pkg/a.py"), file("pkg-1.0.dist-info/RECORD", "stored"))
    assert all(isinstance(entry.source, str) for entry in installer.package(wheel, "3.11").entries)


def test_the_document_is_canonical_json() -> None:
    rows = [("é/b", 0o444, "1" * 64), ("a\n", 0o555, "2" * 64), ('"', 0o444, "3" * 64)]
    canonical = base_json.canonical({"schema": 1, "files": [list(row) for row in sorted(rows)]})
    assert installer.document(rows) == canonical


@given(st.permutations(["alpha", "beta", "gamma"]))
def test_tree_digest_does_not_depend_on_order(names: list[str]) -> None:
    wheels = {name: made(name, file(f"{name}/a.py", name), file("shared.py")) for name in names}
    assert installed(*(wheels[name] for name in names)).tree_digest == (
        installed(*(wheels[name] for name in sorted(names))).tree_digest
    )


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=5), st.tuples(st.booleans(), st.text(max_size=3))))
def test_tree_digest_moves_with_every_path_mode_and_content(files: dict[str, tuple[bool, str]]) -> None:
    rows = [
        (path, 0o555 if executable else 0o444, hashlib.sha256(text.encode()).hexdigest())
        for path, (executable, text) in files.items()
    ]
    document = installer.document(rows)
    assert document == installer.document(reversed(rows))
    for position, (path, mode, sha256) in enumerate(rows):
        for changed in ((path + "x", mode, sha256), (path, mode ^ 0o111, sha256), (path, mode, "0" * 64)):
            assert installer.document([*rows[:position], changed, *rows[position + 1 :]]) != document


def test_equal_files_belong_to_the_first_by_name() -> None:
    one, other = made("alpha", file("tests/__init__.py", "")), made("beta", file("tests/__init__.py", ""))
    tree = installed(other, one)
    owner = next(sha256 for entry, sha256 in tree.owners if entry.path == f"{SITE}/tests/__init__.py")
    assert owner == one.sha256


def test_different_files_at_one_path_name_both_and_the_path() -> None:
    one, other = made("opencv-python", file("cv2/x.so", "1")), made("opencv-headless", file("cv2/x.so", "2"))
    with pytest.raises(PathOwnedTwice, match="opencv-headless and opencv-python both install") as caught:
        installed(one, other)
    assert caught.value.data == {"path": f"{SITE}/cv2/x.so", "packages": ["opencv-headless", "opencv-python"]}


@pytest.mark.parametrize("winner", ["alpha", "beta"])
def test_a_winner_decides(winner: str) -> None:
    wheels = [made("alpha", file("x.py", "1")), made("beta", file("x.py", "2"))]
    tree = installed(*wheels, winners={f"{SITE}/x.py": winner})
    owner = next(sha256 for entry, sha256 in tree.owners if entry.path == f"{SITE}/x.py")
    assert owner == next(wheel.sha256 for wheel in wheels if wheel.name == winner)


def test_a_winner_that_is_none_of_them_decides_nothing() -> None:
    with pytest.raises(PathOwnedTwice):
        installed(
            made("alpha", file("x.py", "1")), made("beta", file("x.py", "2")), winners={f"{SITE}/x.py": "gamma"}
        )


def test_one_mode_more_is_another_file() -> None:
    with pytest.raises(PathOwnedTwice):
        installed(made("alpha", file("x")), made("beta", file("x", executable=True)))


def test_launchers_of_one_name() -> None:
    same = EntryPoint("tool", "pkg", "main", False)
    tree = installed(made("alpha", points=(same,)), made("beta", points=(same,)))
    assert [launcher.path for launcher, _ in tree.launchers] == ["bin/tool"]
    with pytest.raises(PathOwnedTwice, match="bin/tool"):
        installed(made("alpha", points=(same,)), made("beta", points=(EntryPoint("tool", "other", "main", False),)))
    with pytest.raises(PathOwnedTwice, match="bin/tool"):
        installed(made("alpha", points=(same,)), made("beta", file("tool", scheme="scripts", executable=True)))


def test_a_file_where_another_has_a_folder() -> None:
    with pytest.raises(PathOwnedTwice):
        installed(made("alpha", file("x")), made("beta", file("x/y.py")))


def conda(name: str, **links: str) -> CondaPackage:
    """A conda package of links; ``a_b`` is the path ``a/b``."""
    files = [
        CondaFile("prefix", path, path, len(target), hashlib.sha256(target.encode()).hexdigest(), False, target)
        for path, target in ((key.replace("_", "/"), target) for key, target in sorted(links.items()))
    ]
    return CondaPackage(
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        name=name,
        version="1.0",
        build="0",
        filename=f"{name}-1.0-0.conda",
        files=tuple(files),
        entry_points=(),
        scripts=(),
        record={"subdir": "noarch"},
    )


def test_links_of_two_packages_that_lead_out_together_are_refused() -> None:
    one, other = conda("one", a_b_c_l="../../.."), conda("two", a_t="b/c/l/../../etc")
    for alone in (one, other):
        assert installed(alone).owners
    with pytest.raises(HostileConda, match=r"two-1\.0-0\.conda: 'a/t': a link to .* outside"):
        installed(one, other)


def test_a_wheel_has_no_files_below_a_link_of_a_conda_package() -> None:
    wheel = made("wheel", file("lib64/x.py", scheme="data"))
    with pytest.raises(PathOwnedTwice, match="lib64"):
        installed(wheel, conda("linked", lib64="lib"))
    installed(wheel, conda("linked", LIB64="lib"))
    with pytest.raises(PathOwnedTwice, match="lib64"):
        installed(wheel, conda("linked", LIB64="lib"), case_matters=False)


def test_names_that_differ_in_case_alone_matter_without_case() -> None:
    wheels = [made("pycrypto", file("Crypto/a.py", "1")), made("crypto", file("crypto/a.py", "2"))]
    assert len(installed(*wheels).owners) == 6
    with pytest.raises(PathOwnedTwice):
        installed(*wheels, case_matters=False)


def test_a_script_under_the_name_of_its_own_entry_point_gives_way() -> None:
    point = EntryPoint("tool", "pkg", "main", False)
    package = installer.package(
        made("pkg", file("tool", scheme="scripts", executable=True), points=(point,)), "3.11"
    )
    assert [launcher.entry_point for launcher in package.launchers] == [point]
    assert "bin/tool" not in {entry.path for entry in package.entries}
