"""Checks the arrays of a launch before it runs: dtypes, memory layout, and that all are on one device.

A kernel declares for each array parameter

* a dtype: the storage dtype ``T``, any floating dtype and the same for all; its accumulator ``A``, float32 for the halves and
  else T; or a fixed dtype;
* a layout: "contiguous" (in C order), "rows" (elements of the last dimension adjacent, other strides arbitrary, as slices
  and heads of a tensor have them) or "strided" (any strides, also 0 and negative).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy
from numpy import ndarray

from gpunet.backend import devices
from gpunet.backend.dtypes import NATIVE, accumulator, is_floating
from gpunet.errors import LaunchError

T, A = "T", "A"


def has_rows(array: Any) -> bool:
    """Return whether an array has the layout "rows"."""
    return array.ndim > 0 and (array.shape[-1] == 1 or array.strides[-1] == array.itemsize)


class Parameter(NamedTuple):
    """What a kernel requires of an array."""

    name: str
    dtype: str | numpy.dtype[Any]  # "T", "A" or a fixed dtype
    layout: str  # "contiguous", "rows" or "strided"
    is_optional: bool  # it may be None

    def has_layout(self, array: Any) -> bool:
        """Return whether an array has the declared layout."""
        if self.layout == "strided" or array.flags.c_contiguous:
            return True
        return self.layout == "rows" and has_rows(array)


class Contract:
    """The dtypes and layouts that a kernel requires of its arrays.

    Args:
        kernel: name of the kernel, for error messages.
        parameters: of the arrays, in order.
    """

    def __init__(self, kernel: str, parameters: Sequence[Parameter]) -> None:
        self.kernel, self.parameters = kernel, parameters
        #: fast path: True if all arrays are NumPy arrays that satisfy the contract, and T, if any, is its own accumulator;
        #: otherwise call :meth:`check`
        self.is_valid_numpy = _compile_numpy_check(parameters)

    def storage(self, arrays: Sequence[Any]) -> numpy.dtype[Any] | None:
        """Return the dtype ``T`` of these arrays; None if none of them has it."""
        return next((a.dtype for a, p in zip(arrays, self.parameters) if a is not None and p.dtype == T), None)

    def check(self, arrays: Sequence[Any]) -> None:
        """Check the arrays of one launch.

        Raises:
            LaunchError: an array violates the contract; the message names the argument, its value and the requirement.
        """
        array_type, storage = type(first_array(arrays)), self.storage(arrays)
        if storage is not None and not is_floating(storage):
            self._raise_error(arrays)
        sought = {T: storage, A: None if storage is None else accumulator(storage)}
        for array, parameter in zip(arrays, self.parameters, strict=True):
            if array is None:
                if not parameter.is_optional:
                    self._raise_error(arrays)
                continue
            expected: Any = sought.get(parameter.dtype, parameter.dtype) if type(parameter.dtype) is str else parameter.dtype
            if type(array) is not array_type or not parameter.has_layout(array):
                self._raise_error(arrays)
            if array.dtype is not expected and array.dtype != expected:
                self._raise_error(arrays)
        if array_type is not ndarray and array_type is not devices.EmulatedArray:
            self.check_gpus(zip((p.name for p in self.parameters), arrays))

    def check_gpus(self, named: Iterable[tuple[str, Any]]) -> None:
        """Check that all GPU arrays are on the same GPU.

        Args:
            named: pairs of parameter name and array; None arrays are skipped.

        Raises:
            LaunchError: the arrays are on different GPUs.
        """
        gpus = {name: array.data.device_id for name, array in named if array is not None}
        if len(set(gpus.values())) > 1:
            raise LaunchError(
                f"kernel {self.kernel}: arrays on different GPUs "
                f"({', '.join(f'{n} on cuda:{i}' for n, i in gpus.items())}); move them to one GPU with .to(device)"
            )

    def _raise_error(self, arrays: Sequence[Any]) -> None:
        """Raise the LaunchError of the first array that violates the contract."""
        storage: Any = self.storage(arrays)
        is_known = storage is not None and is_floating(storage)
        sought: Any = {T: storage, A: accumulator(storage)} if is_known else {T: "a floating dtype", A: "a floating dtype"}
        first = first_array(arrays)
        for array, parameter in zip(arrays, self.parameters):
            subject = f"kernel {self.kernel}: argument {parameter.name!r}"
            if array is None:
                if not parameter.is_optional:
                    raise LaunchError(f"{subject} is None, expected an array")
                continue
            if type(array) is not type(first):
                raise LaunchError(
                    f"{subject} is a {type(array).__name__}, but the first array is a {type(first).__name__}; all arrays of a "
                    "launch must be on the same device"
                )
            expected = sought.get(parameter.dtype, parameter.dtype) if type(parameter.dtype) is str else parameter.dtype
            if array.dtype != expected if isinstance(expected, numpy.dtype) else not is_floating(array.dtype):
                raise LaunchError(f"{subject} has dtype {array.dtype}, expected {expected}")
            if not parameter.has_layout(array):
                if parameter.layout == "rows":
                    reason = "has elements of a row that are not adjacent"
                else:
                    reason = "is not C-contiguous"
                raise LaunchError(f"{subject} of shape {array.shape} {reason}; pass a contiguous copy")


def first_array(arrays: Sequence[Any]) -> Any:
    """Return the first array that is not None (leading destinations may be optional)."""
    first = arrays[0]
    return first if first is not None else next(a for a in arrays if a is not None)


def _compile_numpy_check(parameters: Sequence[Parameter]) -> Callable[..., bool]:
    """Compile the fast path of :meth:`Contract.check`: a predicate of the arrays, False if any is not a NumPy array.

    The check is one generated expression per kernel because it runs on every eager CPU launch; a loop over the
    arguments takes three times as long.
    """
    names = [f"a{index}" for index in range(len(parameters))]
    namespace: dict[str, Any] = {"__name__": __name__, "ndarray": ndarray, "NATIVE": NATIVE}
    terms: list[str] = []
    has_t = False
    for name, parameter in sorted(zip(names, parameters), key=lambda item: (item[1].is_optional, item[1].dtype == A)):
        term = f"type({name}) is ndarray"
        if parameter.layout != "strided":
            namespace[f"{name}_has_layout"] = parameter.has_layout
            term += f" and {name}.flags.c_contiguous" if parameter.layout == "contiguous" else f" and {name}_has_layout({name})"
        if isinstance(parameter.dtype, numpy.dtype):
            namespace[parameter.dtype.name] = parameter.dtype
            term += f" and {name}.dtype is {parameter.dtype.name}"
        elif has_t:
            term += f" and {name}.dtype is T"
        elif parameter.is_optional:  # only optional arrays have dtype T, so T may be undefined
            return lambda *arrays: False
        else:
            term, has_t = f"{term} and (T := {name}.dtype) in NATIVE", True
        terms.append(f"({name} is None or {term})" if parameter.is_optional else term)
    return eval(f"lambda {', '.join(names)}: {' and '.join(terms)}", namespace)
