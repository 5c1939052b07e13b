"""The numpy codec: arrays and scalars as (description, shape, order, bytes), readable by any numpy.

numpy's own pickles name private modules that moved in numpy 2. Here only public calls are named: `ndarray`,
`dtype`. Object arrays become flat lists, structured arrays that hold objects become one array per field. What
has no neutral description (registered third-party dtypes, variable-width strings, subclasses other than
recarray) keeps its own way of pickling.

The ``restore_*`` and ``fill_*`` functions are named inside stored artifacts: never rename or remove one.
"""

from __future__ import annotations

import pickle
from typing import Any

_NEUTRAL = frozenset("biufcmMSUV?")
_IN_STREAM = 1024


class ArrayPickler(pickle.Pickler):
    """A pickler that passes plain numpy arrays and scalars, however deep they lie, through this codec."""

    def reducer_override(self, value: Any) -> Any:
        """The codec's reduction, ``NotImplemented`` for everything that is not numpy's."""
        numpy = _numpy()
        kind = type(value)
        if kind is numpy.ndarray or kind is numpy.recarray:
            return _reduce_array(numpy, value)
        if isinstance(value, numpy.generic) and kind.__module__ == "numpy":
            return _reduce_scalar(value)
        return NotImplemented


def _numpy() -> Any:
    import numpy as np  # noqa: PLC0415  only where an array is loaded

    return np


def _reduce_array(numpy: Any, array: Any) -> Any:
    dtype = array.dtype
    record = type(array) is numpy.recarray
    if dtype.hasobject:
        return _reduce_objects(array, record)
    described = describe(dtype)
    if described is None:
        return NotImplemented
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return restore_array, (described, array.shape, order, _bytes_of(numpy, array, order), record)


def _bytes_of(numpy: Any, array: Any, order: str) -> Any:
    """The array's memory: small ones as a bytearray in the stream, others by reference."""
    if array.nbytes < _IN_STREAM:
        return bytearray(array.tobytes(order))
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = numpy.ascontiguousarray(array)
    if not array.flags.writeable:  # a read-only buffer would make a read-only array where it is loaded
        array = numpy.asarray(_Unlocked(array))
    flat = (array.T if order == "F" else array).reshape(-1).view(numpy.uint8)
    return pickle.PickleBuffer(flat)


class _Unlocked:
    """The same memory, described as writable. Nothing writes to it."""

    def __init__(self, array: Any) -> None:
        self._array = array
        described = dict(array.__array_interface__)
        described["data"] = (described["data"][0], False)
        self.__array_interface__ = described


def _reduce_objects(array: Any, record: bool) -> Any:
    dtype = array.dtype
    if dtype.names is None and dtype.subdtype is None:
        return restore_objects, (array.shape, record), array.ravel("C").tolist(), None, None, fill_objects
    described = describe(dtype, objects=True)
    if described is None or dtype.names is None:
        return NotImplemented
    numpy = _numpy()
    fields = {name: numpy.asarray(array[name]) for name in dtype.names}
    return restore_fields, (described, array.shape, record), fields, None, None, fill_fields


def _reduce_scalar(value: Any) -> Any:
    if value.dtype.hasobject:
        return NotImplemented
    described = describe(value.dtype)
    if described is None:
        return NotImplemented
    return restore_scalar, (described, value.tobytes())


def describe(dtype: Any, *, objects: bool = False) -> Any:
    """``dtype`` as strings, numbers and containers that any numpy turns back; None where there is no such form."""
    if dtype.metadata or dtype.isbuiltin == 2:
        return None
    if dtype.subdtype is not None:
        base = describe(dtype.subdtype[0], objects=objects)
        return None if base is None else (base, tuple(dtype.subdtype[1]))
    if dtype.names is not None:
        return _describe_fields(dtype, objects)
    if dtype.kind in _NEUTRAL or (objects and dtype.kind == "O"):
        return dtype.str
    return None


def _describe_fields(dtype: Any, objects: bool) -> dict[str, Any] | None:
    fields = [dtype.fields[name] for name in dtype.names]
    forms = [describe(field[0], objects=objects) for field in fields]
    if any(form is None for form in forms):
        return None
    described: dict[str, Any] = {
        "names": list(dtype.names),
        "formats": forms,
        "offsets": [field[1] for field in fields],
        "itemsize": dtype.itemsize,
    }
    if any(len(field) > 2 for field in fields):
        described["titles"] = [field[2] if len(field) > 2 else None for field in fields]
    if dtype.isalignedstruct:
        described["aligned"] = True
    if dtype.type is _numpy().record:
        described["record"] = True
    return described


def dtype_of(described: Any) -> Any:
    """The dtype that ``describe`` was given."""
    numpy = _numpy()
    if isinstance(described, str):
        return numpy.dtype(described)
    if isinstance(described, tuple):
        return numpy.dtype((dtype_of(described[0]), described[1]))
    form = dict(described)
    form["formats"] = [dtype_of(inner) for inner in form["formats"]]
    record = form.pop("record", False)
    aligned = form.pop("aligned", False)
    dtype = numpy.dtype(form, align=aligned)
    return numpy.dtype((numpy.record, dtype)) if record else dtype


def restore_array(described: Any, shape: tuple[int, ...], order: str, data: Any, record: bool) -> Any:
    """The array over ``data``, without a copy."""
    numpy = _numpy()
    dtype = dtype_of(described)
    if len(data) == 0:
        array: Any = numpy.zeros(shape, dtype)
    else:
        array = numpy.ndarray(shape, dtype, data, order=order)
    return array.view(numpy.recarray) if record else array


def restore_objects(shape: tuple[int, ...], record: bool) -> Any:
    """An object array, filled afterwards because its items may refer to it."""
    numpy = _numpy()
    array = numpy.empty(shape, object)
    return array.view(numpy.recarray) if record else array


def fill_objects(array: Any, items: list[Any]) -> None:
    """Puts ``items`` into ``array`` in C order."""
    flat = array.reshape(-1)
    for position, item in enumerate(items):
        flat[position] = item


def restore_fields(described: Any, shape: tuple[int, ...], record: bool) -> Any:
    """A structured array that holds objects, filled field by field afterwards."""
    numpy = _numpy()
    array = numpy.empty(shape, dtype_of(described))
    return array.view(numpy.recarray) if record else array


def fill_fields(array: Any, fields: dict[str, Any]) -> None:
    """Puts each field's array into ``array``."""
    for name, values in fields.items():
        array[name] = values


def restore_scalar(described: Any, data: bytes) -> Any:
    """The scalar with these bytes."""
    numpy = _numpy()
    dtype = dtype_of(described)
    if not data:
        return numpy.zeros((), dtype)[()]
    return numpy.ndarray((), dtype, bytearray(data))[()]
