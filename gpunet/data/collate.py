"""From a list of samples to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend.dtypes import is_numeric
from gpunet.errors import DtypeError, ShapeError
from gpunet.ops.creation import from_numpy, tensor
from gpunet.ops.join import stack

__all__ = ["default_collate", "default_convert"]


def default_collate(batch: Sequence[Any]) -> Any:
    """Join samples of the same structure: their tensors, arrays and numbers get a new first dimension, that of the batch.

    Args:
        batch: samples.  Tensors are stacked; NumPy arrays and numbers become tensors (float64 for floats, int64 for integers);
            strings and bytes stay as they are; mappings, named tuples, tuples and lists are joined item by item.

    Returns:
        The structure of one sample, with tensors and sequences of strings in it; a tuple becomes a list.

    Raises:
        ShapeError: samples differ in shape or length.
        DtypeError: a sample has an item of another type, such as None.
    """
    if not isinstance(batch, Sequence) or isinstance(batch, (str, bytes)) or not batch:
        raise DtypeError(f"default_collate: got {batch!r}; expected a list of samples")
    return _collate(batch, "")


def _collate(items: Sequence[Any], path: str) -> Any:
    """Join the items at ``path`` of the samples, such as "[1]['image']"."""
    first = items[0]
    for number, item in enumerate(items):
        if type(item) is not type(first) and not _have_common_kind(item, first):
            raise DtypeError(
                f"default_collate: {_place(number, path)} has type {type(item).__name__}, but {_place(0, path)} "
                f"{type(first).__name__}; expected the same type in all samples"
            )
    if isinstance(first, Tensor):
        _check_shapes(items, path)
        return stack(list(items))
    if isinstance(first, numpy.ndarray):
        if not is_numeric(first.dtype):
            raise DtypeError(f"default_collate: {_place(0, path)} is an array of dtype {first.dtype}; expected numbers")
        _check_shapes(items, path)
        return from_numpy(numpy.stack(items))
    if isinstance(first, numpy.generic) and is_numeric(first.dtype):
        return from_numpy(numpy.array(items))
    if isinstance(first, (bool, int)):
        return tensor(list(items))
    if isinstance(first, float):
        return tensor(list(items), dtype="float64")
    if isinstance(first, (str, bytes)):
        return items
    if isinstance(first, Mapping):
        for number, item in enumerate(items):
            if missing := [key for key in first if key not in item]:
                raise ShapeError(f"default_collate: {_place(number, path)} has no key {missing[0]!r}, which {_place(0, path)} has")
        joined = {key: _collate([item[key] for item in items], f"{path}[{key!r}]") for key in first}
        return _like(first, joined)
    if isinstance(first, Sequence):
        for number, item in enumerate(items):
            if len(item) != len(first):
                raise ShapeError(
                    f"default_collate: {_place(number, path)} has {len(item)} items, but {_place(0, path)} {len(first)}; expected "
                    "the same number, or pass a collate_fn"
                )
        columns = [_collate(column, f"{path}[{i}]") for i, column in enumerate(zip(*items))]
        if hasattr(first, "_fields"):
            return type(first)(*columns)
        return columns if isinstance(first, tuple) else _like(first, columns)
    raise DtypeError(
        f"default_collate: {_place(0, path)} has type {type(first).__name__}; expected tensors, NumPy arrays, numbers, strings, "
        "or dicts, tuples and lists of these: pass a collate_fn, or convert it in __getitem__"
    )


def _have_common_kind(item: Any, first: Any) -> bool:
    kinds: tuple[Any, ...] = (Tensor, numpy.ndarray, (bool, int, float), numpy.generic, Mapping)
    return any(isinstance(item, kind) and isinstance(first, kind) for kind in kinds)


def _check_shapes(items: Sequence[Any], path: str) -> None:
    for number, item in enumerate(items):
        if item.shape != items[0].shape:
            raise ShapeError(
                f"default_collate: {_place(number, path)} has shape {tuple(item.shape)}, but {_place(0, path)} "
                f"{tuple(items[0].shape)}; expected the same shape in all samples, or pass a collate_fn that pads or crops them"
            )


def _place(number: int, path: str) -> str:
    return f"item {path} of sample {number} of the batch" if path else f"sample {number} of the batch"


def _like(first: Any, content: Any) -> Any:
    """The content as a collection of the class of ``first``, if its constructor takes it."""
    try:
        return content if type(first) in (dict, list) else type(first)(content)
    except TypeError:
        return content


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays in a sample into tensors, and leave all else; this is ``collate_fn`` without batches."""
    if isinstance(data, numpy.ndarray) and is_numeric(data.dtype):
        return from_numpy(data)
    if isinstance(data, numpy.generic) and is_numeric(data.dtype):
        return from_numpy(numpy.asarray(data))
    if isinstance(data, Mapping):
        return _like(data, {key: default_convert(value) for key, value in data.items()})
    if hasattr(data, "_fields"):
        return type(data)(*map(default_convert, data))
    if isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        return list(map(default_convert, data)) if isinstance(data, tuple) else _like(data, list(map(default_convert, data)))
    return data

