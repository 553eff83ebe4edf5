"""What came of running a line of Python with a library: results as plain values, or the error."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import operator
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from types import CodeType
from typing import Any, NamedTuple

import numpy

#: Name of the compiled lines in tracebacks.
FILE = "<call>"


class TensorValue(NamedTuple):
    """A tensor as it was at one moment."""

    shape: tuple[int, ...]
    dtype: str
    requires_grad: bool
    array: numpy.ndarray[Any, Any]  # float64, or the integer or boolean dtype


class Other(NamedTuple):
    """A value that is no tensor: a number, a string, None, or a dtype by its name."""

    type: str
    value: Any


Value = TensorValue | Other | tuple[Any, ...]


class Outcome(NamedTuple):
    """The variables after a line, or the exception that it raised."""

    variables: dict[str, Any]
    error: BaseException | None = None


_SMALLEST = re.compile(r"-(128|32768|2147483648|9223372036854775808)\b")
_DIVISION = re.compile(r"\b(div|divide|floor_divide|fmod|remainder|floordiv|mod)(_|\b)|//|%")
_WITHOUT_STATISTICS = re.compile(r"\bnative_batch_norm\(.*\bNone\b")
_DISTANCES_OF_NOTHING = re.compile(r"(zeros|expand)\(\(?0,.*\bpdist\(")
_FRACTION_OF_INTEGERS = re.compile(r"torch\.range\(.*\b0\.\d.*torch\.u?int|torch\.u?int.*torch\.range\(.*\b0\.\d")


def crashes(text: str) -> bool:
    """Whether a line may end the process in PyTorch (SIGFPE, SIGSEGV).

    So do an integer division of the smallest number by -1, a range of integers whose step is a fraction, which becomes 0, the
    gradient of the distances of no points, and a batch norm in evaluation without statistics.
    """
    is_overflow = _DIVISION.search(text) and _SMALLEST.search(text) and re.search(r"-1\b", text)
    patterns = (_FRACTION_OF_INTEGERS, _DISTANCES_OF_NOTHING, _WITHOUT_STATISTICS)
    return bool(is_overflow or any(pattern.search(text) for pattern in patterns))


@functools.lru_cache(maxsize=64)
def compiled(text: str) -> CodeType:
    return compile(text, FILE, "exec")


def run(text: str, library: Any, variables: dict[str, Any] | None = None) -> Outcome:
    """Run a line with ``library`` under the name ``torch``, on top of the variables of an earlier line."""
    namespace = dict(variables) if variables is not None else start(library)
    try:
        exec(compiled(text), namespace)
        getattr(library, "synchronize", bool)()  # kernels on a GPU report errors late
    except Exception as error:
        return Outcome(namespace, error)
    return Outcome(namespace)


def start(library: Any) -> dict[str, Any]:
    return {
        "torch": library, "np": numpy, "nan": math.nan, "inf": math.inf, "math": math, "operator": operator, "copy": copy,
    }  # fmt: skip


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Hide warnings except NumPy's of floating-point errors, which gpunet must not let out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=RuntimeWarning)
        yield


def snapshot(value: Any) -> Value:
    """Copy a result, of either library, to plain values."""
    kind = type(value)
    if kind in (int, float, bool, str, complex, type(None)):
        return Other(kind.__name__, value)
    if is_tensor(value):
        return _tensor(value)
    if isinstance(value, numpy.ndarray):
        array = value.astype(numpy.float64) if value.dtype.kind not in "biu" else value.copy()
        return TensorValue(value.shape, f"numpy.{value.dtype.name}", False, array)
    if isinstance(value, numpy.dtype) or (str(value).startswith("torch.") and kind.__name__ == "dtype"):
        return Other("dtype", dtype_name(value))
    if kind.__name__ == "Size":
        return ("Size", *map(snapshot, value))
    if isinstance(value, (tuple, list)):
        return ("sequence", *map(snapshot, value))
    if isinstance(value, numpy.generic):
        return Other(f"numpy.{kind.__name__}", value.item())
    return Other("device" if kind.__name__.lower() == "device" else "object", None)


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor, of either library."""
    return hasattr(value, "detach") and hasattr(value, "ndim")


def dtype_name(dtype: Any) -> str:
    return getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")


def _tensor(value: Any) -> TensorValue:
    plain = value.detach().resolve_conj()
    if getattr(plain, "is_sparse", False):  # the gradient that gather(sparse_grad=True) asks for
        plain = plain.to_dense()
    if getattr(plain, "_is_zerotensor", bool)():  # zeros without memory, of a forward-mode rule
        plain = plain.new_zeros(plain.shape)
    dtype = dtype_name(plain.dtype)
    if dtype in _WIDER:
        plain = plain.to(getattr(sys.modules[type(value).__module__.split(".")[0]], _WIDER[dtype]))
    array = plain.cpu().numpy()
    with numpy.errstate(invalid="ignore"):  # uninitialised memory may contain signaling NaN
        array = array.astype(numpy.float64) if array.dtype.kind == "f" else array.copy()
    return TensorValue(tuple(value.shape), dtype, bool(value.requires_grad), array)


#: Dtypes that NumPy lacks -> dtypes that hold their values.
_WIDER = {"bfloat16": "float32", "float16": "float32", "complex32": "complex64", "complex64": "complex128"}


def innermost(error: BaseException) -> tuple[str, str]:
    """The file and function in which an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename, frame.name
