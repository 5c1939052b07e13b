"""Link scripts: which run, in which order, where, and once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkiln._base.platforms import Platform
from flowkiln._base.report import Silent
from flowkiln.envs.builderrors import BadLinking, NowhereToLink, OtherLinkedFiles
from flowkiln.envs.describing import Describer
from flowkiln.envs.installerrors import LinkScripts
from flowkiln.envs.lock import LINKED, LinkedFiles, LockedConda, PlatformLock
from flowkiln.images.linking import ContainerLinker, Means, in_order
from flowkiln.images.linktree import Change, Left
from tests.envs.condatrees import AMD64, locked, part, python

if TYPE_CHECKING:
    from flowkiln.images.linkcontainer import LinkJob
    from tests.services.channel import Channel


def conda(name: str, *depends: str) -> LockedConda:
    return LockedConda(
        name=name, version="1", build="0", filename=name, url=f"u/noarch/{name}", sha256="0" * 64, depends=depends
    )


def names(*packages: LockedConda) -> list[str]:
    return [one.name for one in in_order(packages)]


def test_what_a_package_depends_on_comes_before_it() -> None:
    assert names(conda("a", "z >=1"), conda("b"), conda("z", "m", "__glibc >=2")) == ["z", "a", "b"]
    assert names(conda("a", "c", "b"), conda("b", "d"), conda("c", "d"), conda("d")) == ["d", "b", "c", "a"]


def test_circles_are_broken() -> None:
    assert sorted(names(conda("a", "b"), conda("b", "c"), conda("c", "a"), conda("d", "a"))) == ["a", "b", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=20), st.randoms())
def test_the_order_is_a_function_of_the_packages_and_keeps_every_dependency(
    pairs: list[tuple[int, int]], random: object
) -> None:
    edges = [(a, b) for a, b in pairs if a > b]  # without circles
    packages = [conda(f"p{n}", *(f"p{b} >=1" for a, b in edges if a == n)) for n in range(8)]
    found = names(*packages)
    assert all(found.index(f"p{b}") < found.index(f"p{a}") for a, b in edges)
    random.shuffle(packages)  # type: ignore[attr-defined]
    assert names(*packages) == found


@dataclass
class Scripts:
    """What runs scripts here: it gives what it is told to, and counts."""

    text: str = "made\n"
    deleted: tuple[str, ...] = ()
    jobs: list[LinkJob] = field(default_factory=list)
    platform: Platform = AMD64

    def run(self, job: LinkJob, where: str) -> Left:
        assert where == "base@sha256:1"
        self.jobs.append(job)
        file = job.folder / "0"
        file.write_text(self.text)
        changes = (Change(path="share/made.txt", file=file),)
        return Left(changes=changes, deleted=self.deleted, odd=(), messages="")

    def linker(self, cache: Path) -> ContainerLinker:
        return ContainerLinker(
            Means(
                cache=cache,
                describer=Describer(cache),
                runner=self.of,
                where=lambda python, platform: "base@sha256:1",
                shelf=lambda: None,
                reporter=Silent(),
            )
        )

    def of(self, platform: Platform) -> Scripts:
        if platform != self.platform:
            raise NowhereToLink(f"not {platform}")
        return self


@pytest.fixture
def wanted(conda_channel: Channel) -> PlatformLock:
    return part(python(conda_channel), locked(conda_channel, "post-link"), locked(conda_channel, "generic"))


def linked(lock: PlatformLock, scripts: Scripts, cache: Path, *allowed: str) -> PlatformLock:
    return scripts.linker(cache).linked("fit", lock, frozenset(allowed))


def files_of(lock: PlatformLock) -> LinkedFiles:
    found = next(one for one in lock.packages if one.name == LINKED)
    assert isinstance(found, LinkedFiles)
    return found


def test_scripts_run_once_and_their_files_are_a_package(wanted: PlatformLock, tmp_path: Path) -> None:
    scripts = Scripts()
    found = linked(wanted, scripts, tmp_path, "post-link", "generic")
    assert found.link_scripts == ("post-link",)
    assert found.linked is not None
    assert found.env_id not in (wanted.env_id, found.before_linking.env_id)
    (job,) = scripts.jobs
    assert [(one.kind, one.name, one.version, one.number) for one in job.scripts] == [
        ("post-link", "post-link", "1.0", 0)
    ]
    assert "share/generic/notes.txt" in job.members
    assert linked(wanted, scripts, tmp_path, "post-link") == found
    assert len(scripts.jobs) == 1


def test_a_package_without_scripts_may_be_allowed(wanted: PlatformLock, tmp_path: Path) -> None:
    assert linked(wanted, Scripts(), tmp_path, "generic") == wanted


def test_another_package_with_scripts_is_refused(
    wanted: PlatformLock, conda_channel: Channel, tmp_path: Path
) -> None:
    more = replace(wanted, conda=(*wanted.conda, locked(conda_channel, "pre-link")))
    with pytest.raises(LinkScripts, match=r"pre-link 1\.0 \(pre-link\)") as caught:
        linked(more, Scripts(), tmp_path, "post-link")
    assert 'link_scripts=["post-link", "pre-link"]' in (caught.value.hint or "")


def test_a_script_that_belongs_to_removing_needs_no_word(conda_channel: Channel, tmp_path: Path) -> None:
    lock = part(python(conda_channel), locked(conda_channel, "pre-unlink"))
    assert linked(lock, Scripts(), tmp_path, "pre-unlink") == lock


@pytest.mark.parametrize("text", ["darwin/arm64", "linux/arm64"])
def test_other_platforms_have_no_solution(wanted: PlatformLock, tmp_path: Path, text: str) -> None:
    with pytest.raises(NowhereToLink):
        linked(replace(wanted, platform=Platform.parse(text)), Scripts(), tmp_path, "post-link")


def test_deleted_files_are_refused(wanted: PlatformLock, tmp_path: Path) -> None:
    with pytest.raises(BadLinking, match="deleted files of packages: share/a"):
        linked(wanted, Scripts(deleted=("share/a",)), tmp_path, "post-link")


def test_another_machine_makes_the_same_again(wanted: PlatformLock, tmp_path: Path) -> None:
    one = files_of(linked(wanted, Scripts(), tmp_path / "one", "post-link"))
    assert Scripts().linker(tmp_path / "two").restored(one).read_bytes()
    with pytest.raises(OtherLinkedFiles, match="post-link"):
        Scripts(text="other\n").linker(tmp_path / "three").restored(one)


def test_a_damaged_copy_is_made_anew(wanted: PlatformLock, tmp_path: Path) -> None:
    scripts = Scripts()
    one = files_of(linked(wanted, scripts, tmp_path, "post-link"))
    path = scripts.linker(tmp_path).restored(one)
    path.write_bytes(b"damaged")
    assert scripts.linker(tmp_path).restored(one).stat().st_size == one.size
    assert len(scripts.jobs) == 2


def test_linked_files_count_where_others_have_the_path(
    wanted: PlatformLock, conda_channel: Channel, tmp_path: Path
) -> None:
    both = [locked(conda_channel, f"clobber-{side}") for side in "ab"]
    path = "share/clobber/different.txt"
    lock = replace(wanted, conda=(*wanted.conda, *both), winners=((path, "clobber-b"),))
    found = linked(lock, Scripts(), tmp_path, "post-link")
    assert found.linked is not None
    assert found.linked.replaces == ()
    replaced = replace(found, linked=replace(found.linked, replaces=(path,)))
    assert dict(replaced.chosen) == {path: LINKED}
    assert dict(found.chosen) == {path: "clobber-b"}
