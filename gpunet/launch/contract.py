"""The contract of a kernel's arrays: dtypes, layout, one device; checked before each launch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy import ndarray

from gpunet.backend import devices
from gpunet.backend.dtypes import FLOATING
from gpunet.errors import LaunchError


class Contract:
    """What the arrays of a kernel must be.

    Args:
        kernel: the kernel's name, for messages.
        parameters: names of the arrays.
        dtypes: for each its dtype, or None for the kernel's floating dtype ``T``.
        optional: names of those that may be None.
        strided: names of those that need not be contiguous.
    """

    def __init__(
        self, kernel: str, parameters: Sequence[str], dtypes: Sequence[Any], optional: frozenset[str], strided: frozenset[str]
    ) -> None:
        self.kernel, self.parameters, self.dtypes, self.optional = kernel, parameters, dtypes, optional
        self.strided = [p in strided for p in parameters]
        self._rows = [(dtype, p in optional, p in strided) for p, dtype in zip(parameters, dtypes)]
        #: True for NumPy arrays that keep the contract; of all others :meth:`check` decides
        self.holds_for_numpy = _expression(self._rows)

    def check(self, arrays: Sequence[Any]) -> None:
        """Hold the arrays to the contract.

        Raises:
            LaunchError: which argument, what it is and what it must be.
        """
        kind = type(first_array(arrays))
        floating = None
        for array, (expected, may_be_none, strided) in zip(arrays, self._rows, strict=True):
            if array is None:
                if not may_be_none:
                    self._reject(arrays)
                continue
            if type(array) is not kind or not (strided or array.flags.c_contiguous):
                self._reject(arrays)
            if expected is not None:
                if array.dtype is not expected and array.dtype != expected:
                    self._reject(arrays)
            elif floating is None:
                floating = array.dtype
                if floating not in FLOATING:
                    self._reject(arrays)
            elif array.dtype is not floating and array.dtype != floating:
                self._reject(arrays)
        if kind is not ndarray and kind is not devices.EmulatedArray:
            self.check_gpus(zip(self.parameters, arrays))

    def check_gpus(self, named: Iterable[tuple[str, Any]]) -> None:
        """Hold arrays on GPUs to one GPU.

        Raises:
            LaunchError: they are on several.
        """
        gpus = {name: array.data.device_id for name, array in named if array is not None}
        if len(set(gpus.values())) > 1:
            raise LaunchError(
                f"launch of {self.kernel}: arrays on different GPUs "
                f"({', '.join(f'{n} on cuda:{i}' for n, i in gpus.items())}); move them to one"
            )

    def _reject(self, arrays: Sequence[Any]) -> None:
        floating: Any = next((a.dtype for a, d in zip(arrays, self.dtypes) if a is not None and d is None), None)
        if floating not in FLOATING:
            floating = "float32 or float64"
        for name, array, expected in zip(self.parameters, arrays, self.dtypes):
            what = f"launch of {self.kernel}: argument {name!r}"
            if array is None:
                if name not in self.optional:
                    raise LaunchError(f"{what} is None, expected an array")
                continue
            if type(array) is not type(first_array(arrays)):
                raise LaunchError(
                    f"{what} is a {type(array).__name__}, the first array a {type(first_array(arrays)).__name__}: all arrays "
                    "of a launch live on one device"
                )
            if array.dtype != (floating if expected is None else expected):
                raise LaunchError(
                    f"{what} has dtype {array.dtype}, expected {floating if expected is None else expected}"
                )
            if not array.flags.c_contiguous:
                raise LaunchError(f"{what} of shape {array.shape} is not C-contiguous; pass a contiguous copy")


def first_array(arrays: Sequence[Any]) -> Any:
    """The first array that is there: an optional destination may come before it."""
    first = arrays[0]
    return first if first is not None else next(a for a in arrays if a is not None)


def _expression(rows: Sequence[tuple[Any, bool, bool]]) -> Callable[..., bool]:
    """A function of the arrays: True for NumPy's that keep the contract; of all others :meth:`Contract.check` decides.

    It is one expression, compiled once for each kernel: a loop over the arguments takes three times as long, and this is
    the inner loop of an eager step on the CPU.
    """
    names = [f"a{index}" for index in range(len(rows))]
    space: dict[str, Any] = {"ndarray": ndarray, "FLOATING": FLOATING}
    terms: list[str] = []
    knows_t = False
    for name, (expected, may_be_none, strided) in sorted(zip(names, rows), key=lambda item: item[1][1]):
        term = f"type({name}) is ndarray" + ("" if strided else f" and {name}.flags.c_contiguous")
        if expected is not None:
            space[expected.name] = expected
            term += f" and {name}.dtype is {expected.name}"
        elif knows_t:
            term += f" and {name}.dtype is T"
        elif may_be_none:  # nothing that is always there tells T
            return lambda *arrays: False
        else:
            term, knows_t = f"{term} and (T := {name}.dtype) in FLOATING", True
        terms.append(f"({name} is None or {term})" if may_be_none else term)
    return eval(f"lambda {', '.join(names)}: {' and '.join(terms)}", space)
