"""Every written form of a direct reference, and what requests make of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.errors import FlowkilnError
from flowkiln.envs import directforms, requirements
from flowkiln.envs.direct import DirectReference
from flowkiln.envs.directerrors import BadReference, FolderMissing, NoProject, ReferencesContradict, SourceError
from flowkiln.envs.errors import BadSource
from flowkiln.envs.sources import file_spec, merge, project_spec, spec

H = "a" * 64
GIT = "https://git.example/x.git"


def project(folder: Path, name: str = "mylib", more: str = 'version = "1"\ndependencies = ["attrs>=20"]\n') -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n{more}')
    (folder / "src" / name).mkdir(parents=True, exist_ok=True)
    (folder / "src" / name / "__init__.py").write_text("")
    return folder


def reference(**told: Any) -> DirectReference:
    return DirectReference(**{"name": "mylib", "kind": "git", "url": GIT, **told})


ARCHIVE = "https://h.example/mylib-1.0.tar.gz"
FORMS = [
    (f"mylib @ git+{GIT}", reference()),
    (f"mylib@git+{GIT}@v1#subdirectory=py", reference(ref="v1", subdirectory="py")),
    (f"git+{GIT}@feature/x#egg=MyLib&subdirectory=a/b", reference(ref="feature/x", subdirectory="a/b")),
    ("mylib @ git+ssh://git@h.example/o/x.git@v1", reference(url="ssh://git@h.example/o/x.git", ref="v1")),
    ("mylib @ git+ssh://git@h.example/o/x.git", reference(url="ssh://git@h.example/o/x.git")),
    ("mylib @ git+file:///srv/x", reference(url="file:///srv/x")),
    (f"mylib @ {ARCHIVE}#sha256={H}", reference(kind="archive", url=ARCHIVE, sha256=H)),
    (f"{ARCHIVE}?a=1", reference(kind="archive", url=f"{ARCHIVE}?a=1")),
    (
        "https://h.example/mylib-1.0-py3-none-any.whl",
        reference(kind="archive", url="https://h.example/mylib-1.0-py3-none-any.whl"),
    ),
]


@pytest.mark.parametrize(("line", "expected"), FORMS)
def test_lines(line: str, expected: DirectReference, tmp_path: Path) -> None:
    assert directforms.is_direct(line)
    found = directforms.of_line(line, tmp_path)
    assert (found.requirement, found.reference) == ("mylib", expected)


TABLES = [
    ({"git": GIT, "ref": "v1", "subdirectory": "py"}, reference(ref="v1", subdirectory="py")),
    ({"git": "git@h.example:o/x.git"}, reference(url="ssh://git@h.example/o/x.git")),
    ({"url": ARCHIVE, "sha256": H}, reference(kind="archive", url=ARCHIVE, sha256=H)),
]


@pytest.mark.parametrize(("table", "expected"), TABLES)
def test_tables(table: dict[str, Any], expected: DirectReference, tmp_path: Path) -> None:
    found = spec({"packages": {"MyLib": table}}, folder=tmp_path)
    assert (found.direct, found.requirements) == ((expected,), ("mylib",))
    assert spec({"packages": {"other": "1"}}, folder=tmp_path).spec_id != found.spec_id


@pytest.mark.parametrize(
    ("packages", "wanted"),
    [
        ({"mylib[fast]": {"git": GIT, "extras": ["Slow"], "marker": "os_name == 'posix'"}}, None),
        ([f"mylib[fast,slow] @ git+{GIT} ; os_name == 'posix'"], None),
        ([f"mylib [slow, fast]@git+{GIT} ;os_name=='posix'"], None),
    ],
)
def test_extras_and_markers_stay_with_the_name(packages: Any, wanted: None, tmp_path: Path) -> None:
    found = spec({"packages": packages}, folder=tmp_path)
    assert found.requirements == ('mylib[fast,slow] ; os_name == "posix"',)
    assert found.direct == (reference(),)


BAD = [
    ({"git": GIT, "url": ARCHIVE}, BadReference),
    ({"git": GIT, "branch": "x"}, BadReference),
    ({"git": GIT, "version": "1"}, ReferencesContradict),
    ({"url": ARCHIVE, "index": "https://i.example"}, ReferencesContradict),
    ({"git": "ext::sh -c x"}, BadReference),
    ({"git": "../x"}, BadReference),
    ({"git": GIT, "ref": "--upload-pack=x"}, BadReference),
    ({"git": GIT, "ref": "a b"}, BadReference),
    ({"git": GIT, "subdirectory": "../x"}, BadReference),
    ({"git": 1}, BadReference),
    ({"git": GIT, "extras": "fast"}, BadReference),
    ({"url": ARCHIVE, "sha256": "abc"}, BadReference),
    ({"url": "https://h.example/mylib"}, BadReference),
    ({"url": "https://h.example/other-1.0-py3-none-any.whl"}, BadReference),
    ({"url": "s3://h.example/mylib-1.0.tar.gz"}, BadReference),
    ({"url": "https://user:word@[::1/mylib-1.0.tar.gz"}, BadReference),
    ({"git": "https://user:word@[::1/mylib"}, BadReference),
    ({"path": "x" * 5000}, BadReference),
    ({"path": "absent"}, FolderMissing),
    ({"path": ".", "as": "link"}, BadReference),
]


@pytest.mark.parametrize(("table", "error"), BAD)
def test_bad_tables(table: dict[str, Any], error: type[FlowkilnError], tmp_path: Path) -> None:
    project(tmp_path)
    with pytest.raises(error, match=r"mylib|here") as caught:
        spec({"packages": {"mylib": table}}, folder=tmp_path, where="here")
    assert caught.value.hint or caught.value.advice


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("hg+https://h.example/x#egg=mylib", "not supported"),
        ("mylib @ svn+ssh://h.example/x", "not supported"),
        (f"git+{GIT}", "does not say which distribution"),
        ("https://h.example/archive/main.zip", "does not say which distribution"),
        (f"mylib @ {ARCHIVE}#md5=123", "'md5' after the #"),
        (f"mylib @ git+{GIT}#sha256={H}", "'sha256' after the #"),
        ("./absent", "there is no folder"),
        ("mylib @ nothing", "neither a URL nor a path"),
    ],
)
def test_bad_lines(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        directforms.of_line(line, tmp_path, "here")


def test_a_secret_is_in_no_message_and_no_identity(tmp_path: Path) -> None:
    for url in ("https://me:canary@h.example/mylib", "https://me:canary@h.example/other-1-py3-none-any.whl"):
        with pytest.raises(BadReference) as caught:
            spec({"packages": {"mylib": {"url": url}}}, folder=tmp_path)
        assert "canary" not in caught.value.message
    with pytest.raises(BadReference) as caught:
        spec({"packages": ["git+https://me:canary@h.example/x"]}, folder=tmp_path)
    assert "canary" not in caught.value.message
    ids = [
        spec({"packages": {"mylib": {"git": url}}}, folder=tmp_path).spec_id
        for url in (GIT, GIT.replace("//", "//me:canary@"))
    ]
    assert ids[0] == ids[1]


def test_paths_start_at_the_declaring_file(tmp_path: Path) -> None:
    project(tmp_path / "lib")
    flows = tmp_path / "flows"
    (flows / "req").mkdir(parents=True)
    (flows / "req" / "r.txt").write_text("../../lib[fast]\n-e ../../lib\n--editable ../../lib/.\n")
    found = spec({"requirements": "req/r.txt"}, folder=flows)
    assert found.requirements == ("mylib", "mylib[fast]")
    (one,) = found.direct
    assert (one.kind, one.url, one.name) == ("folder", "../lib", "mylib")
    assert one.content is not None
    same = spec({"packages": {"mylib": {"path": "../lib", "extras": ["fast"]}}}, folder=flows)
    assert same.direct == found.direct
    uri = (tmp_path / "lib").as_uri()
    assert spec({"packages": [f"mylib @ {uri}"]}, folder=flows).direct == found.direct
    (tmp_path / "lib" / "src" / "mylib" / "__init__.py").write_text("X = 1")
    assert spec({"requirements": "req/r.txt"}, folder=flows).spec_id != found.spec_id


def test_a_file_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mylib-1.0.tar.gz").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    expected = reference(kind="archive", url="mylib-1.0.tar.gz", sha256=digest)
    for packages in (
        ["./mylib-1.0.tar.gz"],
        {"mylib": {"path": "mylib-1.0.tar.gz"}},
        ["mylib @ ./mylib-1.0.tar.gz"],
    ):
        assert spec({"packages": packages}, folder=tmp_path).direct == (expected,)
    with pytest.raises(SourceError, match="another sha256"):
        spec({"packages": {"mylib": {"path": "mylib-1.0.tar.gz", "sha256": H}}}, folder=tmp_path)


def test_a_project_that_does_not_say_its_name(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "setup.py").write_text("raise SystemExit('must not run')")
    with pytest.raises(NoProject, match="does not say the name") as caught:
        spec({"packages": ["./lib"]}, folder=tmp_path)
    assert "NAME @ ./path" in caught.value.advice
    assert spec({"packages": ["mylib @ ./lib"]}, folder=tmp_path).direct[0].url == "lib"
    (tmp_path / "lib" / "setup.cfg").write_text("[metadata]\nname = My_Lib\n")
    assert spec({"packages": ["./lib"]}, folder=tmp_path).direct[0].name == "my-lib"


def test_hashes_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text(f"{ARCHIVE} --hash=sha256:{H}\n")
    (one,) = requirements.read_file(path).direct
    assert one.reference.sha256 == H
    for line in (
        f"{ARCHIVE} --hash=sha256:{H} --hash=sha256:{'b' * 64}",
        f"{ARCHIVE}#sha256={'b' * 64} --hash=sha256:{H}",
        f"mylib @ git+{GIT} --hash=sha256:{H}",
    ):
        path.write_text(f"{line}\n")
        with pytest.raises(BadReference, match="line 1"):
            requirements.read_file(path)


def test_variables_in_urls(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text("mylib @ git+https://${TOKEN}@git.example/x.git\n")
    (one,) = requirements.read_file(path, environ={"TOKEN": "canary"}).direct
    assert one.reference.url == "https://canary@git.example/x.git"
    with pytest.raises(BadSource, match="TOKEN is not set"):
        requirements.read_file(path, environ={})


def test_two_references_and_versions_beside_one(tmp_path: Path) -> None:
    with pytest.raises(ReferencesContradict, match="asked for twice"):
        spec({"packages": [f"mylib @ git+{GIT}@a", f"mylib @ git+{GIT}@b"]}, folder=tmp_path)
    found = spec({"packages": [f"mylib @ git+{GIT}", "mylib[fast]>=2", "other==1"]}, folder=tmp_path)
    assert found.requirements == ("mylib", "mylib[fast]", "other==1")
    assert found.constraints == ("mylib>=2",), "the solver says whether what is built satisfies it"


def test_a_steps_entry_replaces_the_flows(tmp_path: Path) -> None:
    project(tmp_path / "lib")
    source = {"path": "lib"}

    def merged(base: Any, own: Any) -> Any:
        both = merge({"packages": base}, {"packages": own}, folder=tmp_path)
        found = spec(both, folder=tmp_path)
        assert spec(merge(both, {}, folder=tmp_path), folder=tmp_path) == found
        return found.requirements, tuple(one.kind for one in found.direct)

    assert merged({"mylib": "1.0", "a": "1"}, {"MyLib": source}) == (("a==1", "mylib"), ("folder",))
    assert merged({"mylib": source, "a": "1"}, {"mylib": "1.0"}) == (("a==1", "mylib==1.0"), ())
    assert merged(["./lib"], [f"mylib @ git+{GIT}"]) == (("mylib",), ("git",))
    assert merged({"mylib": {"version": "1", "index": "https://i.example"}}, {"mylib": source})[1] == ("folder",)


PROJECT = """
[project]
name = "app"
version = "1"
dependencies = ["mylib[fast]>=1", "beta", "gamma", "delta ; os_name == 'nt'", "epsilon @ {archive}"]
[tool.uv.sources]
mylib = {{ path = "../lib", editable = true }}
beta = {{ git = "{git}", tag = "v1", subdirectory = "py" }}
gamma = {{ url = "https://h.example/gamma-1.0.tar.gz" }}
delta = {{ workspace = true }}
[tool.uv.workspace]
members = ["members/*"]
[tool.flowkiln.envs.train.packages]
mylib = {{ path = "../lib" }}
"""


def test_sources_of_uv(tmp_path: Path) -> None:
    project(tmp_path / "lib")
    app = tmp_path / "app"
    project(app / "members" / "d", "delta")
    path = app / "pyproject.toml"
    path.write_text(PROJECT.format(git=GIT, archive=ARCHIVE.replace("mylib", "epsilon")))
    found = file_spec(path)
    assert [(one.name, one.kind, one.url, one.ref) for one in found.direct] == [
        ("beta", "git", GIT, "v1"),
        ("delta", "folder", "members/d", None),
        ("epsilon", "archive", "https://h.example/epsilon-1.0.tar.gz", None),
        ("gamma", "archive", "https://h.example/gamma-1.0.tar.gz", None),
        ("mylib", "folder", "../lib", None),
    ]
    assert found.requirements == ("beta", 'delta ; os_name == "nt"', "epsilon", "gamma", "mylib[fast]")
    assert found.constraints == ("mylib>=1",)
    assert project_spec(path, "train").direct[0].url == "../lib"
    text = path.read_text()
    path.write_text(text.replace("editable = true", "editable = true, package = false"))
    with pytest.raises(BadSource, match="package of the source of mylib"):
        file_spec(path)
    path.write_text(text.replace("members/*", "others/*"))
    with pytest.raises(BadSource, match="no member of that name"):
        file_spec(path)


def test_scripts_and_environment_files(tmp_path: Path) -> None:
    project(tmp_path / "lib")
    script = tmp_path / "job.py"
    script.write_text(
        '# /// script\n# dependencies = ["mylib", "b @ https://h.example/b-1.tar.gz"]\n'
        '# [tool.uv.sources]\n# mylib = { path = "lib" }\n# ///\n'
    )
    assert [one.kind for one in file_spec(script).direct] == ["archive", "folder"]
    environment = tmp_path / "environment.yml"
    environment.write_text(f"dependencies:\n- python=3.11\n- pip:\n  - ./lib\n  - b @ git+{GIT}\n")
    assert [one.kind for one in file_spec(environment).direct] == ["git", "folder"]


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,8}(/[A-Za-z0-9][A-Za-z0-9_+-]{0,5}){0,2}", fullmatch=True)


@given(name=NAMES, user=st.one_of(st.none(), NAMES), path=WORDS, ref=st.one_of(st.none(), WORDS))
def test_a_line_says_what_a_table_says(name: str, user: str | None, path: str, ref: str | None) -> None:
    url = f"ssh://{f'{user}@' if user else ''}h.example/{path}.git"
    line = f"{name} @ git+{url}{f'@{ref}' if ref else ''}"
    table = {"git": url, **({"ref": ref} if ref else {})}
    assert directforms.of_line(line, Path("/x")) == directforms.of_table(name, table, Path("/x"))


@given(text=st.text(max_size=40))
def test_any_line_is_understood_or_refused(text: str) -> None:
    if directforms.is_direct(text):
        try:
            found = directforms.of_line(text, Path("/nowhere"))
        except SourceError:
            return
        assert found.reference.name
