from __future__ import annotations

import pickletools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowkiln.store import artifacts
from flowkiln.store.folder import FolderStore
from tests.store import processes

FLAT = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.datetime64_dtypes()
    | hnp.timedelta64_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.byte_string_dtypes()
)
DTYPES = hnp.nested_dtypes(FLAT, max_leaves=4)


@settings(suppress_health_check=list(HealthCheck), deadline=None, max_examples=120)
@given(data=st.data())
def test_arrays_round_trip(store: FolderStore, data: st.DataObject) -> None:
    dtype = data.draw(DTYPES)
    shape = data.draw(hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    array = data.draw(hnp.arrays(dtype, shape, fill=st.nothing()))
    repeat = data.draw(st.sampled_from([1, 200]))  # small in the stream, larger out of it
    array = np.concatenate([array] * repeat) if array.ndim else array
    layout = data.draw(st.sampled_from(["C", "F", "reversed", "read-only", "strided"]))
    if layout == "F":
        array = np.asfortranarray(array)
    elif layout == "reversed":
        array = array[::-1] if array.ndim else array
    elif layout == "strided":
        array = array[..., ::2] if array.ndim else array
    elif layout == "read-only":
        array.flags.writeable = False
    check(store, array)


def check(store: FolderStore, array: Any) -> Any:
    loaded = artifacts.load(artifacts.save("a", array, store.blobs), store.blobs)
    assert type(loaded) is type(array)
    assert loaded.dtype == array.dtype
    assert loaded.dtype.type is array.dtype.type
    assert loaded.shape == array.shape
    assert loaded.tobytes() == array.tobytes() or array.dtype.hasobject
    if array.flags.forc:  # else it was copied, in C order
        assert loaded.flags.f_contiguous == array.flags.f_contiguous
    assert loaded.flags.writeable
    return loaded


@pytest.mark.parametrize("count", [3, 3000])
def test_record_arrays(store: FolderStore, count: int) -> None:
    form = [("a", "i8"), ("b", "f8"), ("c", "U1")]
    array = np.rec.fromrecords([(1, 2.5, "x")] * count, dtype=form)
    loaded = check(store, array)
    assert loaded.b[0] == 2.5
    one = artifacts.decode(artifacts.encode("row", array[0]))
    assert type(one) is np.record
    assert one.c == "x"
    plain = np.asarray(array)
    assert check(store, plain).tolist() == plain.tolist()


@pytest.mark.parametrize("count", [2, 2000])
def test_object_arrays(store: FolderStore, count: int) -> None:
    array = np.array([[1, "a"], [None, {"x": np.arange(count)}]], dtype=object)
    loaded = check(store, array)
    assert loaded[0].tolist() == [1, "a"]
    assert loaded[1, 1]["x"].sum() == count * (count - 1) // 2
    empty = np.empty((0, 3), dtype=object)
    assert check(store, empty).shape == (0, 3)
    itself = np.empty(1, dtype=object)
    itself[0] = itself
    loaded = check(store, itself)
    assert loaded[0] is loaded
    nested = np.empty(2, dtype=object)
    nested[:] = [[1, 2], [3, 4]]  # lists, which an assignment would spread
    assert check(store, nested).tolist() == [[1, 2], [3, 4]]


def test_structured_arrays_with_objects(store: FolderStore) -> None:
    inner = np.dtype([("o", "O"), ("t", "M8[ns]")])
    array = np.zeros((2, 2), dtype=[("name", "O"), ("x", "f4", (3,)), ("in", inner)])
    array["name"] = [["a", None], [(1, 2), "d"]]
    array["x"] = 7
    array["in"]["t"] = np.datetime64("2020-01-01")
    loaded = check(store, array)
    assert loaded["name"].tolist() == array["name"].tolist()
    assert (loaded["x"] == 7).all()
    assert (loaded["in"]["t"] == np.datetime64("2020-01-01")).all()


def test_offsets_titles_and_alignment_survive(store: FolderStore) -> None:
    padded = np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"], "offsets": [0, 16], "itemsize": 32})
    aligned = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    titled = np.dtype([(("The title", "a"), "i4")])
    for dtype in (padded, aligned, titled, np.dtype([])):
        loaded = check(store, np.zeros(3, dtype))
        assert loaded.dtype.isalignedstruct == dtype.isalignedstruct
        assert loaded.dtype.fields == dtype.fields


@pytest.mark.parametrize("value", [
    np.float64(1.5), np.float32("nan"), np.int8(-1), np.bool_(True), np.str_(""), np.str_("ü"), np.bytes_(b"x"),
    np.datetime64("2020-01-01T00:00", "s"), np.datetime64("NaT"), np.timedelta64(5, "D"), np.complex64(1j),
    np.zeros((), [("a", "i4")])[()], np.longdouble("1.25"),
])  # fmt: skip
def test_scalars_round_trip(value: Any) -> None:
    loaded = artifacts.decode(artifacts.encode("s", {"in": [value]}))["in"][0]
    assert type(loaded) is type(value)
    assert loaded.dtype == value.dtype
    assert loaded.tobytes() == value.tobytes()


def test_what_has_no_neutral_description_keeps_its_own_pickle(store: FolderStore) -> None:
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    assert artifacts.decode(artifacts.encode("m", masked)).tolist() == [1, None, 3]
    described = np.zeros(3, np.dtype("i4", metadata={"unit": "m"}))
    assert artifacts.decode(artifacts.encode("m", described)).dtype.metadata == {"unit": "m"}
    strings = np.array(["a", "bc"], dtype=np.dtypes.StringDType())
    assert artifacts.decode(artifacts.encode("m", strings)).tolist() == ["a", "bc"]


def test_random_generators_go_on_where_they_were(store: FolderStore) -> None:
    generator = np.random.default_rng(7)
    generator.random(10)
    loaded = artifacts.decode(artifacts.encode("g", generator))
    assert loaded.random(5).tolist() == generator.random(5).tolist()


def test_no_private_numpy_module_is_named(store: FolderStore) -> None:
    value = [
        np.zeros(3),
        np.zeros(3, object),
        np.float64(1),
        np.rec.fromrecords([(1, "x")]),
        np.zeros(2, [("a", "O")]),
    ]
    data = artifacts.encode("v", value)
    names = {str(argument) for code, argument, _ in pickletools.genops(data[data.index(b"\x80\x05") :])
             if code.name == "SHORT_BINUNICODE"}  # fmt: skip
    assert not {name for name in names if name.startswith("numpy")}
    assert "flowkiln.store.arrays" in names


def test_a_foreign_contiguous_buffer_is_not_copied(store: FolderStore) -> None:
    array = np.zeros((1000, 10), order="F")
    artifact = artifacts.save("a", array, store.blobs)
    assert artifact.size < array.nbytes + 1000
    assert artifact.inline is None


PEAK = """
import resource, sys
import numpy as np
from flowkiln.store import artifacts
from flowkiln.store.folder import FolderStore
store = FolderStore(sys.argv[1])
array = np.ones(1 << 24)  # 128 MiB
def peak():
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
before = peak()
artifact = artifacts.save("a", array, store.blobs)
loaded = artifacts.load(artifact, store.blobs)
assert loaded[5] == 1
print(peak() - before)
"""


def test_saving_and_loading_needs_no_copy_in_memory(store: FolderStore) -> None:
    assert int(processes.run(PEAK, store.root)) < 13 * 1024 * 1024


READ = """
import sys
sys.path[:0] = sys.argv[1:3]
import numpy as np
assert np.__version__.startswith(sys.argv[3]), np.__version__
from flowkiln.store import artifacts
value = artifacts.decode(open(sys.argv[4], "rb").read())
assert value["floats"].tolist() == [float(number) for number in range(300)]
assert value["fortran"].flags.f_contiguous and value["fortran"].tolist() == [[1, 2, 3], [4, 5, 6]]
assert type(value["table"]) is np.recarray and value["table"].b.tolist() == ["x", "y"]
assert value["dates"].dtype == "M8[ns]" and value["objects"].tolist() == [1, "a", None]
assert type(value["scalar"]) is np.float32 and value["mixed"]["o"].tolist() == [["l"], None]
sys.stdout.buffer.write(artifacts.encode("value", value))
"""


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.26", "2.0"])
def test_arrays_pass_between_numpy_1_and_2(version: str, tmp_path: Path) -> None:
    """Written by this numpy, read and written by another one, read here again."""
    target = tmp_path / "site"
    command = [
        "uv",
        "pip",
        "install",
        "-q",
        "--python",
        sys.executable,
        "--target",
        str(target),
        f"numpy=={version}.*",
    ]
    subprocess.run(command, check=True)
    fixture = Path(__file__).parent / "fixtures" / "artifact-v1-arrays.bin"
    source = Path(__file__).parents[2] / "src"
    arguments = [str(target), str(source), version, str(fixture)]
    done = subprocess.run([sys.executable, "-S", "-c", READ, *arguments], check=True, capture_output=True)
    value = artifacts.decode(done.stdout)
    assert value["table"].a.tolist() == [1, 2]
    assert value["scalar"] == np.float32(1.5)
    assert f'"origin":"numpy {version}.'.encode() in done.stdout
