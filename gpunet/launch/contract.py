"""Checks the arrays of a launch before it runs: dtypes, memory layout, and that all are on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from numpy import ndarray

from gpunet.backend import devices
from gpunet.backend.dtypes import FLOATING
from gpunet.errors import LaunchError


class Contract:
    """The dtypes and layouts that a kernel requires of its arrays.

    Args:
        kernel: name of the kernel, for error messages.
        parameters: names of the array parameters.
        dtypes: the dtype of each parameter; None stands for the kernel's floating dtype ``T``.
        optional: names of the parameters that may be None.
        strided: names of the parameters that may be non-contiguous.
    """

    def __init__(
        self, kernel: str, parameters: Sequence[str], dtypes: Sequence[Any], optional: frozenset[str], strided: frozenset[str]
    ) -> None:
        self.kernel, self.parameters, self.dtypes, self.optional = kernel, parameters, dtypes, optional
        self.strided = [p in strided for p in parameters]
        self._rows = [(dtype, p in optional, p in strided) for p, dtype in zip(parameters, dtypes)]
        #: fast path: True if all arrays are NumPy arrays that satisfy the contract; otherwise call :meth:`check`
        self.is_valid_numpy = _compile_numpy_check(self._rows)

    def check(self, arrays: Sequence[Any]) -> None:
        """Check the arrays of one launch.

        Raises:
            LaunchError: an array violates the contract; the message names the argument, its value and the requirement.
        """
        array_type = type(first_array(arrays))
        floating = None
        for array, (expected, is_optional, is_strided) in zip(arrays, self._rows, strict=True):
            if array is None:
                if not is_optional:
                    self._raise_error(arrays)
                continue
            if type(array) is not array_type or not (is_strided or array.flags.c_contiguous):
                self._raise_error(arrays)
            if expected is not None:
                if array.dtype is not expected and array.dtype != expected:
                    self._raise_error(arrays)
            elif floating is None:
                floating = array.dtype
                if floating not in FLOATING:
                    self._raise_error(arrays)
            elif array.dtype is not floating and array.dtype != floating:
                self._raise_error(arrays)
        if array_type is not ndarray and array_type is not devices.EmulatedArray:
            self.check_gpus(zip(self.parameters, arrays))

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
        floating: Any = next((a.dtype for a, d in zip(arrays, self.dtypes) if a is not None and d is None), None)
        if floating not in FLOATING:
            floating = "float32 or float64"
        for name, array, expected in zip(self.parameters, arrays, self.dtypes):
            subject = f"kernel {self.kernel}: argument {name!r}"
            if array is None:
                if name not in self.optional:
                    raise LaunchError(f"{subject} is None, expected an array")
                continue
            if type(array) is not type(first_array(arrays)):
                raise LaunchError(
                    f"{subject} is a {type(array).__name__}, but the first array is a "
                    f"{type(first_array(arrays)).__name__}; all arrays of a launch must be on the same device"
                )
            if array.dtype != (floating if expected is None else expected):
                raise LaunchError(
                    f"{subject} has dtype {array.dtype}, expected {floating if expected is None else expected}"
                )
            if not array.flags.c_contiguous:
                raise LaunchError(f"{subject} of shape {array.shape} is not C-contiguous; pass a contiguous copy")


def first_array(arrays: Sequence[Any]) -> Any:
    """Return the first array that is not None (leading destinations may be optional)."""
    first = arrays[0]
    return first if first is not None else next(a for a in arrays if a is not None)


def _compile_numpy_check(rows: Sequence[tuple[Any, bool, bool]]) -> Callable[..., bool]:
    """Compile the fast path of :meth:`Contract.check`: a predicate of the arrays, False if any is not a NumPy array.

    The check is one generated expression per kernel because it runs on every eager CPU launch; a loop over the
    arguments takes three times as long.

    Args:
        rows: (dtype or None for ``T``, is_optional, is_strided) of each parameter.
    """
    names = [f"a{index}" for index in range(len(rows))]
    namespace: dict[str, Any] = {"ndarray": ndarray, "FLOATING": FLOATING}
    terms: list[str] = []
    has_t = False
    for name, (expected, is_optional, is_strided) in sorted(zip(names, rows), key=lambda item: item[1][1]):
        term = f"type({name}) is ndarray" + ("" if is_strided else f" and {name}.flags.c_contiguous")
        if expected is not None:
            namespace[expected.name] = expected
            term += f" and {name}.dtype is {expected.name}"
        elif has_t:
            term += f" and {name}.dtype is T"
        elif is_optional:  # only optional arrays have dtype T, so T may be undefined
            return lambda *arrays: False
        else:
            term, has_t = f"{term} and (T := {name}.dtype) in FLOATING", True
        terms.append(f"({name} is None or {term})" if is_optional else term)
    return eval(f"lambda {', '.join(names)}: {' and '.join(terms)}", namespace)
