from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import gc
import socket
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkiln._base.errors import ExitCode, FormatTooNew
from flowkiln.store import artifacts
from flowkiln.store.artifacts import Artifact
from flowkiln.store.errors import BlobDamaged, BlobMissing, UnpicklableArtifact, UnreadableArtifact
from flowkiln.store.folder import FolderStore

FIXTURES = Path(__file__).parent / "fixtures"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=6000)
    | st.decimals(allow_nan=False)
    | st.datetimes()
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers())
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values)
def test_values_round_trip(store: FolderStore, value: object) -> None:
    artifact = artifacts.save("value", value, store.blobs)
    loaded = artifacts.load(artifact, store.blobs)
    assert loaded == value
    assert type(loaded) is type(value)
    assert Artifact.from_json(artifact.to_json()) == artifact
    assert (artifact.inline is None) == (artifact.size > 4096)
    assert artifacts.decode(artifacts.encode("value", value)) == value
    assert artifacts.same(artifact, value)


def test_identity_and_cycles_survive(store: FolderStore) -> None:
    shared = np.arange(2000)
    value: list[Any] = [shared, {"again": shared}]
    value.append(value)
    loaded = artifacts.load(artifacts.save("value", value, store.blobs), store.blobs)
    assert loaded[0] is loaded[1]["again"]
    assert loaded[2] is loaded


def test_small_values_travel_inline(store: FolderStore) -> None:
    artifact = artifacts.save("x", 42, store.blobs)
    assert artifact.inline is not None
    assert not Path(store.root).exists()  # nothing was written
    assert artifact.type == "int"
    assert artifact.origin is None
    assert artifact.python == ".".join(map(str, sys.version_info[:3]))
    assert set(artifact.to_json()) == {"type", "size", "python", "inline"}


def test_equal_values_have_equal_bytes(store: FolderStore) -> None:
    one = artifacts.save("a", {"rows": np.arange(5000.0)}, store.blobs)
    two = artifacts.save("b", {"rows": np.arange(5000.0)}, store.blobs)
    assert one == two
    assert artifacts.save("c", np.arange(5000.0), store.blobs).sha256 != one.sha256


def test_an_untouched_value_passes_by_reference(store: FolderStore) -> None:
    artifact = artifacts.save("m", {"w": np.zeros((300, 300)), "n": [1, 2]}, store.blobs)
    value = artifacts.load(artifact, store.blobs)
    assert artifacts.same(artifact, value)
    value["w"][3, 4] = 1.0  # in place, copy-on-write
    assert not artifacts.same(artifact, value)
    assert artifacts.load(artifact, store.blobs)["w"].sum() == 0
    assert not artifacts.same(artifact, {"w": np.zeros((300, 300)), "n": [1, 3]})
    assert not artifacts.same(artifact, [])
    assert not artifacts.same(artifact, {"w": threading.Lock()})


def test_loaded_arrays_are_views_of_the_blob(store: FolderStore) -> None:
    artifact = artifacts.save("a", np.arange(100_000.0), store.blobs)
    array = artifacts.load(artifact, store.blobs)
    assert not array.flags.owndata
    assert array.flags.writeable
    assert array.ctypes.data % artifacts.ALIGNMENT == 0
    gc.collect()
    assert array[-1] == 99_999.0


def test_type_and_origin_name_the_distribution(store: FolderStore) -> None:
    artifact = artifacts.save("a", [{"x": (np.zeros(3),)}], store.blobs)
    assert artifact.type == "list"
    assert artifact.origin == f"numpy {np.__version__}"
    assert artifacts.save("d", dt.date(2024, 1, 1), store.blobs).type == "datetime.date"
    assert artifacts.save("d", decimal.Decimal(1), store.blobs).origin is None
    assert artifacts.save("d", OrderedDict(), store.blobs).origin is None


# -- what cannot be stored ---------------------------------------------------------------------------------------


class Layer:
    def __init__(self) -> None:
        self.weights = [1.0]


class Slotted:
    __slots__ = ("lock", "name")

    def __init__(self) -> None:
        self.name = "x"
        self.lock: Any = threading.Lock()


@dataclasses.dataclass
class Config:
    name: str
    hook: Any


class Model:
    def __init__(self) -> None:
        self.layers = [Layer() for _ in range(5)]


def broken_layer() -> Model:
    model = Model()
    model.layers[3].lock = threading.Lock()  # type: ignore[attr-defined]
    return model


def cycle() -> dict[str, Any]:
    value: dict[str, Any] = {"first": 1}
    value["self"] = value
    value["deep"] = {"back": value, "bad": (x for x in "ab")}
    return value


def back_reference() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["first"] = {"back": value}
    value["bad"] = threading.Lock()
    return value


class OwnState:
    def __init__(self) -> None:
        self.cache = threading.Lock()
        self.kept = [lambda: 0]

    def __getstate__(self) -> dict[str, Any]:
        return {"kept": self.kept}


class Refuses:
    def __reduce__(self) -> str:
        message = "not this one,\n  ever"
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        (broken_layer(), "model.layers[3].lock", "_thread.lock"),
        ({"a": [0, {"b": threading.Lock()}]}, "model['a'][1]['b']", "_thread.lock"),
        (Slotted(), "model.lock", "_thread.lock"),
        (Config("c", lambda: 0), "model.hook", "function"),
        (cycle(), "model['deep']['bad']", "generator"),
        (back_reference(), "model['bad']", "_thread.lock"),
        ([0] * 1_000_000 + [{"x": threading.Lock()}] + [0] * 1_000_000, "model[1000000]['x']", "_thread.lock"),
        ({threading.Lock(): 1}, "model, key <unlocked", "_thread.lock"),
        (OwnState(), "model.kept[0]", "function"),
        (Refuses(), "model", f"{__name__}.Refuses"),
        ([Refuses()], "model[0]", f"{__name__}.Refuses"),
        (threading.Lock(), "model", "_thread.lock"),
        (np.array([[1, None], [threading.Lock(), 2]], dtype=object), "model[1, 0]", "_thread.lock"),
        ({1: sys}, "model[1]", "module"),
    ],
)  # fmt: skip
def test_an_unpicklable_artifact_is_named_with_the_path_inside_it(
    store: FolderStore, value: object, path: str, kind: str
) -> None:
    with pytest.raises(UnpicklableArtifact) as caught:
        artifacts.save("model", value, store.blobs)
    found = str(caught.value.data["path"])
    assert found.startswith(path)
    assert found == path or "unlocked" in path
    assert caught.value.data == {"artifact": "model", "path": found, "type": kind}
    assert caught.value.message.startswith(f"artifact `model` cannot be stored: `{found}` is a {kind}: ")
    assert "\n" not in caught.value.message
    assert caught.value.exit_code == ExitCode.USER_CODE
    assert store.scratch_files() == []


def test_open_sockets_and_files_are_named(store: FolderStore, tmp_path: Path) -> None:
    with socket.socket() as connection, pytest.raises(UnpicklableArtifact, match=r"`c\['s'\]` is a socket.socket"):
        artifacts.save("c", {"s": connection}, store.blobs)
    with (tmp_path / "f").open("w") as stream, pytest.raises(UnpicklableArtifact, match=r"_io\.TextIOWrapper"):
        artifacts.encode("c", stream)


def test_endless_nesting_is_a_clear_error(store: FolderStore) -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UnpicklableArtifact, match="nested too deeply"):
        artifacts.save("v", value, store.blobs)
    while value:  # taken apart by hand: freeing it recursively needs as much stack
        value = value.pop()


def test_a_failure_after_much_data_leaves_nothing(store: FolderStore) -> None:
    with pytest.raises(UnpicklableArtifact, match=r"`v\[1\]`"):
        artifacts.save("v", [b"x" * 1_000_000, threading.Lock()], store.blobs)
    assert store.scratch_files() == []
    assert not Path(store.root, "blobs").exists()


# -- what cannot be read ------------------------------------------------------------------------------------------


def test_a_missing_package_is_named_with_the_version_it_was_written_with(store: FolderStore) -> None:
    data = artifacts.encode("x", dt.date(2024, 1, 1))
    start = data.index(b'{"schema"')
    header = b'{"schema":1,"codec":"pickle-5","python":"3.8.1","type":"gone.T","origin":"gone-pkg 1.2"}'
    stream = b"cgone_module\nT\n."
    size = len(header)
    body = data[:8] + size.to_bytes(4, "little") + header + stream
    tail = (12 + size).to_bytes(8, "little") + len(stream).to_bytes(8, "little") + bytes(4) + b"FKAE"
    assert start == 12
    with pytest.raises(UnreadableArtifact) as caught:
        artifacts.decode(body + tail, name="x")
    assert "value `x` (gone.T) cannot be read: ModuleNotFoundError" in caught.value.message
    assert (
        "It was written with gone-pkg 1.2 on Python 3.8.1; you have no gone-pkg on Python 3."
        in caught.value.message
    )


def test_an_incompatible_package_is_named_with_both_versions(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = artifacts.save("a", np.zeros(1000), store.blobs)

    def incompatible(*_: object) -> None:
        message = "unexpected keyword"
        raise TypeError(message)

    monkeypatch.setattr("flowkiln.store.arrays.dtype_of", incompatible)
    with pytest.raises(
        UnreadableArtifact, match=f"written with numpy {np.__version__} on .* you have numpy {np.__version__}"
    ):
        artifacts.load(artifact, store.blobs, name="a")


def test_damage_is_told_apart_from_newer_formats(store: FolderStore) -> None:
    data = artifacts.encode("x", [1, 2, 3])
    for broken in (b"", b"x", data[:-1], data[1:], data[:30], b"x" * len(data)):
        with pytest.raises(BlobDamaged):
            artifacts.decode(broken)
    with pytest.raises(FormatTooNew, match="format 7; this flowkiln reads up to 1"):
        artifacts.decode(data.replace(b'"schema":1', b'"schema":7'))
    artifact = artifacts.save("x", b"x" * 5000, store.blobs)
    Path(store.blobs.path(artifact.sha256)).unlink()
    with pytest.raises(BlobMissing):
        artifacts.load(artifact, store.blobs)


@given(st.binary(max_size=200))
def test_any_bytes_are_damage_not_a_crash(data: bytes) -> None:
    with pytest.raises(BlobDamaged):
        artifacts.decode(data)


# -- frozen formats -----------------------------------------------------------------------------------------------


def test_frozen_artifacts_of_version_1_are_read() -> None:
    plain = artifacts.decode((FIXTURES / "artifact-v1-plain.bin").read_bytes())
    assert plain == {"name": "ada", "n": [1, 2.5, None, True], "t": (b"x", "ü")}
    mixed = artifacts.decode((FIXTURES / "artifact-v1-arrays.bin").read_bytes())
    assert mixed["floats"].tolist() == [float(number) for number in range(300)]
    assert mixed["fortran"].flags.f_contiguous
    assert mixed["fortran"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert mixed["table"].a.tolist() == [1, 2]
    assert mixed["table"].b.tolist() == ["x", "y"]
    assert mixed["dates"].dtype == "M8[ns]"
    assert mixed["objects"].tolist() == [1, "a", None]
    assert mixed["scalar"] == np.float32(1.5)
    assert mixed["mixed"]["o"].tolist() == [["l"], None]
