"""The kernel of a ``cuda_op``, described by the signature of its CUDA entry point, and the user's callbacks."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy

from gpunet.backend import compiler as sources
from gpunet.backend.dtypes import C_TYPES
from gpunet.backend.signature import DTYPES, Entry, Parameter, as_scalar
from gpunet.errors import ArgumentError, DeviceError, DtypeError, LaunchError, ShapeError
from gpunet.launch.kernel import Geometry, Kernel

_LAUNCH_KEYS = ("grid", "block", "shared", "template")


class Callback:
    """A user's function that receives values by the names of its parameters, like a pytest fixture.

    Args:
        label: the function in messages, such as "launch of cuda_op 'double'".
    """

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        self.function, self.label = function, label
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            parameters = None
        if parameters is None or any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters):
            raise ArgumentError(
                f"{label} is {function!r}; expected a function with named parameters, since it is called by name: "
                "wrap it, as in lambda x: numpy.tanh(x)"
            )
        self.names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.required = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.default is p.empty]
        self.has_var_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __call__(self, values: dict[str, Any]) -> Any:
        """Call the function with those of ``values`` that its parameters name.

        Raises:
            ArgumentError: a parameter without a default has no value.
        """
        for name in self.required:
            if name not in values:
                raise ArgumentError(f"{self.label} needs {name!r}, which was not passed; passed: {', '.join(values)}")
        if self.has_var_keyword:
            return self.function(**values)
        return self.function(**{name: values[name] for name in self.names if name in values})

    def check_names(self, allowed: Iterable[str]) -> None:
        """Raise an ArgumentError if a parameter without a default is not one of ``allowed``."""
        allowed = list(allowed)
        for name in self.required:
            if name not in allowed:
                raise ArgumentError(f"{self.label} has a parameter {name!r}; expected some of {', '.join(allowed)}")


class CustomKernel(Kernel):
    """The kernel of a ``cuda_op``: a CUDA entry point and the user's twin.  It is not added to ``KERNELS``.

    Args:
        source: the spliced CUDA source.
        entry: the parsed signature of the entry point.
        qualified_name: the entry point as C++ names it, with its namespace.
        callbacks: keyed by "launch", "shapes", "twin", "backward".
    """

    traceable = False
    widens = False  # a user's twin gets the arrays as they are

    def __init__(
        self, source: sources.Source, entry: Entry, qualified_name: str, callbacks: dict[str, Callback]
    ) -> None:
        label = f"cuda_op {entry.name!r}"
        self.signature = entry
        self.type = entry.types[0] if entry.types else None
        pointers = [p for p in entry.parameters if p.pointer]
        self.output_names = [p.name for p in pointers if not p.constant]
        self.input_names = [p.name for p in pointers if p.constant]
        self.scalars = [p for p in entry.parameters if not p.pointer]
        if not self.output_names or not self.input_names or not all(p.name for p in entry.parameters):
            raise ArgumentError(
                f"{label}: {entry}; expected an output (a pointer), an input (a pointer to const), and names for all "
                "parameters"
            )
        self._launch, self._twin = callbacks["launch"], callbacks.get("twin")
        requested = {name for key in ("launch", "shapes") if key in callbacks for name in callbacks[key].names}
        requested |= {p.name for p in self.scalars}
        #: the options that a caller may pass by keyword
        self.option_names = sorted(requested - {*self.output_names, *self.input_names})
        types = {p.name: self._dtype(p, label) for p in pointers if p.c_type != self.type}
        super().__init__(self._as_twin(), source, len(self.output_names), types)
        self.entry = qualified_name
        self._position = {p: i for i, p in enumerate(self.parameters)}

    def _dtype(self, parameter: Parameter, label: str) -> str:
        dtype = DTYPES.get(parameter.c_type)
        if dtype not in C_TYPES:
            raise ArgumentError(
                f"{label}: parameter '{parameter}' points to {parameter.c_type!r}; expected "
                f"{'' if self.type is None else self.type + ', '}{', '.join(C_TYPES.values())}"
            )
        return dtype

    def _as_twin(self) -> Callable[..., None]:
        """Wrap the user's twin, which returns arrays, as a twin that writes to its destinations."""

        def twin(*arrays: Any, **options: Any) -> None:
            if self._twin is None:
                raise DeviceError(
                    f"cuda_op {self.name!r} has no twin, so it does not run on the CPU: pass twin= to cuda_op, or move "
                    "the tensors to 'cuda', or to 'emulated', which needs g++ but no GPU"
                )
            returned = self._twin(dict(zip(self.input_names, arrays[self.outputs :])) | options)
            results = returned if isinstance(returned, (tuple, list)) else (returned,)
            if len(results) != self.outputs:
                raise ArgumentError(
                    f"{self._twin.label} returned {len(results)} arrays; expected {self.outputs}: "
                    f"{', '.join(self.output_names)}"
                )
            for name, destination, result in zip(self.output_names, arrays, map(numpy.asarray, results)):
                if result.shape != destination.shape:
                    raise ShapeError(
                        f"{self._twin.label} returned {name!r} of shape {result.shape}, expected {destination.shape}"
                    )
                if not numpy.can_cast(result.dtype, destination.dtype, "same_kind"):
                    raise DtypeError(
                        f"{self._twin.label} returned {name!r} of {result.dtype}, expected {destination.dtype}"
                    )
                numpy.copyto(destination, result, casting="same_kind")

        kinds = inspect.Parameter
        twin.__name__ = self.signature.name
        twin.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in (*self.output_names, *self.input_names)]
            + [kinds(name, kinds.KEYWORD_ONLY) for name in self.option_names]
        )
        return twin

    def launch_geometry(self, arrays: Sequence[Any], options: dict[str, Any]) -> Geometry:
        """Call ``launch`` and convert its scalars to the declared types.

        Raises:
            LaunchError: a key is missing or unknown, or a scalar cannot be converted.
        """
        label = self._launch.label
        returned = self._launch(dict(zip(self.parameters, arrays)) | options)
        if not isinstance(returned, dict) or not {"grid", "block"} <= returned.keys():
            raise LaunchError(
                f"{label} returned {returned!r}; expected a dictionary with 'grid', 'block' and scalars by name"
            )
        scalars = {p.name for p in self.scalars}
        unknown = returned.keys() - scalars - {*_LAUNCH_KEYS}
        if unknown:
            raise LaunchError(f"{label} returned {sorted(unknown)[0]!r}, which is not a scalar of {self.signature}")
        values = dict(options)
        for name in returned.keys() & scalars:
            if name in options:
                raise LaunchError(f"{label}: {name!r} was passed and is also computed by launch; remove one")
            values[name] = returned[name]
        for name in scalars - values.keys():
            raise LaunchError(
                f"{label}: the scalar {name!r} of {self.signature} has no value: pass {name}=, or return it from launch"
            )
        storage = self.contract.storage(arrays)
        floating = "float32" if storage is None else storage.name
        converted = tuple(self._convert(p, values[p.name], floating) for p in self.scalars)
        template = returned.get("template", ())
        template = (template,) if isinstance(template, str) else tuple(template)
        try:
            grid, block = (
                tuple(map(operator.index, n if isinstance(n, tuple) else (n,)))
                for n in (returned["grid"], returned["block"])
            )
            return Geometry(grid, block, converted, template, operator.index(returned.get("shared", 0)))
        except TypeError:
            raise LaunchError(
                f"{label} returned {returned!r}; expected an integer or a tuple of integers for grid and block, and an "
                "integer for shared"
            ) from None

    def _convert(self, parameter: Parameter, value: Any, floating: str) -> Any:
        dtype = floating if parameter.c_type == self.type else DTYPES.get(parameter.c_type)
        label = f"{self._launch.label}: scalar '{parameter}'"
        if dtype is None:
            if isinstance(value, numpy.ndarray) and value.size == 1 and value.dtype.names:
                return value
            raise LaunchError(f"{label} is {value!r}; expected a structured NumPy array of one element")
        return as_scalar(value, dtype, label)

    def expression(self, floating: str, geometry: Geometry) -> str:
        arguments = ((floating,) if self.type else ()) + geometry.template
        return f"{self.entry}<{', '.join(arguments)}>" if arguments else self.entry

    def pack(self, arrays: Sequence[Any], geometry: Geometry) -> tuple[Any, ...]:
        scalars = iter(geometry.scalars)
        return tuple(arrays[self._position[p.name]] if p.pointer else next(scalars) for p in self.signature.parameters)
