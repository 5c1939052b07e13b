"""OCI layouts: whole or not at all, other tools read them, and a folder keeps what it had."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

from flowkiln._base import digests
from flowkiln.images import layout, manifest, oci
from flowkiln.images.errors import BadLayout, LayerDiffers
from flowkiln.images.layout import write_layout
from tests import stack
from tests.services.home import MACHINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from flowkiln.images.oci import Descriptor, Document


class Made:
    """An image of one layer, with its blobs to hand in."""

    def __init__(self, text: str, architecture: str = "amd64") -> None:
        self.tar = layout.entry("etc/text", text.encode()) + layout.END
        self.layer = gzip.compress(self.tar, mtime=0)
        self.config = document(
            oci.CONFIG,
            {
                "architecture": architecture,
                "os": "linux",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [digests.of_bytes(self.tar)]},
                "history": [{"created_by": "test"}],
            },
        )
        self.blob = oci.Descriptor(
            media_type=oci.LAYER_GZIP, digest=digests.of_bytes(self.layer), size=len(self.layer)
        )
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.config.descriptor.to_json(),
            "layers": [self.blob.to_json()],
        }
        self.manifest = document(oci.MANIFEST, body)
        self.read = 0

    def blobs(self) -> Iterator[tuple[Descriptor, Any]]:
        yield self.config.descriptor, [self.config.data]
        yield self.blob, self._write

    def _write(self, sink: Callable[[bytes], object]) -> None:
        self.read += 1
        sink(self.layer[:10])
        sink(self.layer[10:])


def document(media_type: str, body: dict[str, Any]) -> Document:
    return oci.Document(media_type=media_type, data=json.dumps(body).encode())


def names(folder: Path) -> dict[str, str]:
    rows = json.loads((folder / "index.json").read_text())["manifests"]
    return {row["annotations"]["org.opencontainers.image.ref.name"]: row["digest"] for row in rows}


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("existing", [False, True])
def test_a_new_folder(tmp_path: Path, existing: bool) -> None:
    made, target = Made("a"), tmp_path / "deep" / "out"
    if existing:
        target.mkdir(parents=True)
    write_layout(target, [made.manifest], made.blobs(), name="1.0")
    assert names(target) == {"1.0": made.manifest.digest}
    assert json.loads((target / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    for blob in (target / "blobs/sha256").iterdir():
        assert digests.of_file(blob) == f"sha256:{blob.name}"
    assert len(list((target / "blobs/sha256").iterdir())) == 3
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_a_folder_keeps_its_images(tmp_path: Path) -> None:
    first, second, third = Made("a"), Made("b"), Made("c")
    for made, name in ((first, "one"), (second, "two"), (third, "one")):
        write_layout(tmp_path / "out", [made.manifest], made.blobs(), name=name)
    assert names(tmp_path / "out") == {"two": second.manifest.digest, "one": third.manifest.digest}


def test_a_blob_that_is_there_is_not_read(tmp_path: Path) -> None:
    made = Made("a")
    for name in ("one", "two"):
        write_layout(tmp_path / "out", [made.manifest], made.blobs(), name=name)
    assert made.read == 1
    assert set(names(tmp_path / "out")) == {"one", "two"}


@pytest.mark.parametrize("form", ["new", "existing", "archive"])
def test_what_fails_leaves_everything_as_it_was(tmp_path: Path, form: str) -> None:
    before, made = Made("before"), Made("a")
    target = tmp_path / ("out.tar" if form == "archive" else "out")
    if form != "new":
        write_layout(target, [before.manifest], before.blobs(), name="1")
    shown = everything(tmp_path)

    def torn() -> Iterator[tuple[Descriptor, Any]]:
        yield made.config.descriptor, [made.config.data]
        yield made.blob, [made.layer[:-1]]

    with pytest.raises(LayerDiffers):
        write_layout(target, [made.manifest], torn(), name="1")
    with pytest.raises(ValueError, match="not handed in"):
        write_layout(target, [made.manifest], list(made.blobs())[:1], name="1")
    with pytest.raises(KeyboardInterrupt):
        write_layout(target, [made.manifest], [(made.blob, interrupt)], name="1")
    assert everything(tmp_path) == shown


def interrupt(sink: Callable[[bytes], object]) -> None:
    sink(b"half")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("file", "text"),
    [("notes.txt", "mine"), ("oci-layout", '{"imageLayoutVersion": "2.0.0"}'), ("oci-layout", "[]")],
)
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, file: str, text: str) -> None:
    made = Made("a")
    (tmp_path / "index.json").write_text('{"manifests": []}')
    (tmp_path / file).write_text(text)
    shown = everything(tmp_path)
    with pytest.raises(BadLayout):
        write_layout(tmp_path, [made.manifest], made.blobs(), name="1")
    assert everything(tmp_path) == shown


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    made = Made("a")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(BadLayout, match="is a file"):
        write_layout(tmp_path / "out", [made.manifest], made.blobs(), name="1")
    assert (tmp_path / "out").read_text() == "mine"


def test_two_that_write_at_once_are_both_there(tmp_path: Path) -> None:
    images = {str(number): Made(str(number)) for number in range(8)}
    write_layout(tmp_path / "out", [images["0"].manifest], images["0"].blobs(), name="0")
    threads = [
        threading.Thread(
            target=write_layout, args=(tmp_path / "out", [made.manifest], made.blobs()), kwargs={"name": name}
        )
        for name, made in images.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path / "out") == {name: made.manifest.digest for name, made in images.items()}


def test_an_archive_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    made = Made("a")
    for name in ("a.tar", "b.tar"):
        write_layout(tmp_path / name, [made.manifest], made.blobs(), name="1")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames()[:2] == ["oci-layout", "index.json"]


def test_an_image_has_one_top(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not 2"):
        write_layout(tmp_path / "x", [Made("a").manifest, Made("b").manifest], [], name="1")


# -- read by others


def run(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], env=MACHINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_skopeo_and_crane_read_it(tmp_path: Path) -> None:
    made = Made("a")
    skopeo, crane = stack.tool("skopeo"), stack.tool("crane")
    address = stack.registry("plain").address
    write_layout(tmp_path / "out", [made.manifest], made.blobs(), name="1.0")
    write_layout(tmp_path / "out.tar", [made.manifest], made.blobs(), name="1.0")
    for place in (f"oci:{tmp_path}/out:1.0", f"oci-archive:{tmp_path}/out.tar:1.0"):
        found = json.loads(run(skopeo, "inspect", place))
        assert (found["Digest"], found["Layers"]) == (made.manifest.digest, [made.blob.digest])
        target = f"{address}/layout-tests/{place.partition(':')[0]}:1"
        run(skopeo, "copy", "--dest-tls-verify=false", "--preserve-digests", place, f"docker://{target}")
        assert run(crane, "digest", target).strip() == made.manifest.digest
        run(crane, "validate", "--remote", target)


@pytest.mark.e2e
def test_an_index_of_platforms_is_read_by_others(tmp_path: Path) -> None:
    both = [Made("a", "amd64"), Made("b", "arm64")]
    rows = [
        (one.manifest, {"os": "linux", "architecture": name})
        for one, name in zip(both, ("amd64", "arm64"), strict=True)
    ]
    index = manifest.index(rows, {})
    blobs = [blob for one in both for blob in one.blobs()]
    write_layout(tmp_path / "out", [index, *(one.manifest for one in both)], blobs, name="1.0")
    assert names(tmp_path / "out") == {"1.0": index.digest}
    for one, name in zip(both, ("amd64", "arm64"), strict=True):
        found = run(stack.tool("skopeo"), "--override-arch", name, "inspect", f"oci:{tmp_path}/out:1.0")
        assert json.loads(found)["Layers"] == [one.blob.digest]
