"""One-hot encoding of labels."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.autograd import Tensor, make_tensor
from gpunet.backend import devices
from gpunet.backend.dtypes import is_integer
from gpunet.errors import ArgumentError, DtypeError, ShapeError
from gpunet.launch.tape import constant, graph_break_on_read
from gpunet.ops.broadcast import cast
from gpunet.ops.compare import eq
from gpunet.ops.dims import MAX_ELEMENTS
from gpunet.ops.face import as_integer, public
from gpunet.ops.index_launches import INT64, check_labels, label_error, label_site
from gpunet.ops.shape import unsqueeze

__all__ = ["one_hot"]

_SITE = label_site("one_hot")


@public(out=False, names={"labels": "input"})
def one_hot(input: Any, num_classes: int = -1) -> Tensor:
    """One-hot encode integer labels: int64, shape (*input.shape, num_classes).

    Args:
        num_classes: -1 means the largest label + 1.

    Raises:
        DtypeError: the labels are not of an integer dtype.
        ShapeError: the result would have more elements than memory has bytes.
        LabelError: a label is outside 0 .. num_classes - 1.  On a GPU with ``num_classes`` its row is 0, and the error is
            raised when the host next reads a value or synchronizes.
    """
    array, num_classes = input.array, as_integer("one_hot", "num_classes", num_classes)
    if not is_integer(array.dtype):
        raise DtypeError(f"one_hot: labels of dtype {array.dtype}; expected integers: convert them with .long()")
    if num_classes < -1:
        raise ArgumentError(f"one_hot: num_classes={num_classes}; expected a number of classes, or -1 for the largest label + 1")
    if num_classes < 1 and not array.size:
        raise ArgumentError(f"one_hot: no labels (shape {tuple(array.shape)}), so no largest label; pass num_classes")
    if num_classes != -1 and type(array) is not numpy.ndarray:
        check_labels(array, num_classes, _SITE)
        with devices.on_device_of(array):
            columns = make_tensor(constant(devices.module(array).arange(num_classes)))
        return cast(eq(unsqueeze(make_tensor(array), -1), columns), dtype=INT64)
    graph_break_on_read("one_hot()", array)
    with devices.on_device_of(array):
        classes = num_classes
        if num_classes == -1:
            classes = int(devices.to_host(array.max())) + 1
        if array.size * classes > MAX_ELEMENTS:
            raise ShapeError(f"one_hot: {array.size} labels of {classes} classes; expected at most {MAX_ELEMENTS} elements")
        if array.size:
            flat = devices.to_host(array.reshape(-1))
            bad = (flat < 0) | (flat >= classes)
            if bad.any():
                row = int(bad.argmax())
                raise label_error(_SITE.name, int(flat[row]), row, classes)
        return make_tensor((array[..., None] == devices.module(array).arange(classes)).astype(numpy.int64))
