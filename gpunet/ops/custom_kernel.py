"""A user's kernel at the launch seam: what its CUDA entry point declares, and functions that are called by name."""

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

_LAUNCH = ("grid", "block", "shared", "template")


class ByName:
    """A function that is called with what its parameters name."""

    def __init__(self, function: Callable[..., Any], what: str) -> None:
        self.function, self.what = function, what
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            parameters = None
        if parameters is None or any(p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL) for p in parameters):
            raise ArgumentError(
                f"{what} is called with what its parameters name, and {function!r} does not name them; wrap it: "
                "lambda x: numpy.tanh(x)"
            )
        self.names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
        self.required = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD and p.default is p.empty]
        self.takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)

    def __call__(self, values: dict[str, Any]) -> Any:
        for name in self.required:
            if name not in values:
                raise ArgumentError(f"{self.what} needs {name!r}, which was not passed; there are {', '.join(values)}")
        if self.takes_all:
            return self.function(**values)
        return self.function(**{name: values[name] for name in self.names if name in values})

    def check_names(self, known: Iterable[str]) -> None:
        known = list(known)
        for name in self.required:
            if name not in known:
                raise ArgumentError(f"{self.what} has a parameter {name!r}, which is none of {', '.join(known)}")


class CustomKernel(Kernel):
    """A user's kernel: what its CUDA entry point declares, and the twin behind it.  It stands in no registry."""

    traceable = False

    def __init__(self, source: sources.Source, entry: Entry, called: str, functions: dict[str, ByName]) -> None:
        what = f"cuda_op {entry.name!r}"
        self.declared = entry
        self.type = entry.types[0] if entry.types else None
        pointers = [p for p in entry.parameters if p.pointer]
        self.out = [p.name for p in pointers if not p.constant]
        self.inputs = [p.name for p in pointers if p.constant]
        self.scalars = [p for p in entry.parameters if not p.pointer]
        if not self.out or not self.inputs or not all(p.name for p in entry.parameters):
            raise ArgumentError(
                f"{what}: {entry} must have an output (a pointer), an input (a pointer to const) and names for all parameters"
            )
        self._launch, self._twin = functions["launch"], functions.get("twin")
        named = {name for key in ("launch", "shapes") if key in functions for name in functions[key].names}
        #: every option that may be passed
        self.taken = sorted(({p.name for p in self.scalars} | named) - {*self.out, *self.inputs})
        types = {p.name: self._dtype(p, what) for p in pointers if p.c_type != self.type}
        super().__init__(self._as_twin(), source, len(self.out), types, "", "")
        self.entry = called
        self._places = {p: i for i, p in enumerate(self.parameters)}

    def _dtype(self, parameter: Parameter, what: str) -> str:
        dtype = DTYPES.get(parameter.c_type)
        if dtype not in C_TYPES:
            raise ArgumentError(
                f"{what}: parameter '{parameter}' points to {parameter.c_type!r}; expected "
                f"{'' if self.type is None else self.type + ', '}{', '.join(C_TYPES.values())}"
            )
        return dtype

    def _as_twin(self) -> Callable[..., None]:
        """The twin as the launch seam has them: destinations first, which it fills."""

        def twin(*arrays: Any, **options: Any) -> None:
            if self._twin is None:
                raise DeviceError(
                    f"cuda_op {self.name!r} has no twin, so it does not run on the CPU: pass twin= to cuda_op, or move the "
                    "tensors to 'cuda', or to 'emulated', which needs g++ and no card"
                )
            found = self._twin(dict(zip(self.inputs, arrays[self.outputs :])) | options)
            results = found if isinstance(found, (tuple, list)) else (found,)
            if len(results) != self.outputs:
                raise ArgumentError(
                    f"{self._twin.what} returned {len(results)} arrays; expected {self.outputs}: {', '.join(self.out)}"
                )
            for name, destination, result in zip(self.out, arrays, map(numpy.asarray, results)):
                if result.shape != destination.shape:
                    raise ShapeError(
                        f"{self._twin.what} returned {name!r} of shape {result.shape}, expected {destination.shape}"
                    )
                if not numpy.can_cast(result.dtype, destination.dtype, "same_kind"):
                    raise DtypeError(
                        f"{self._twin.what} returned {name!r} of {result.dtype}, expected {destination.dtype}"
                    )
                numpy.copyto(destination, result, casting="same_kind")

        kinds = inspect.Parameter
        twin.__name__ = self.declared.name
        twin.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [kinds(name, kinds.POSITIONAL_OR_KEYWORD) for name in (*self.out, *self.inputs)]
            + [kinds(name, kinds.KEYWORD_ONLY) for name in self.taken]
        )
        return twin

    def launch_geometry(self, arrays: Sequence[Any], options: dict[str, Any]) -> Geometry:
        """What ``launch`` answers, its scalars as the CUDA function declares them.

        Raises:
            LaunchError: it lacks something or has too much, or a scalar does not fit.
        """
        what = self._launch.what
        answer = self._launch(dict(zip(self.parameters, arrays)) | options)
        if not isinstance(answer, dict) or not {"grid", "block"} <= answer.keys():
            raise LaunchError(
                f"{what} returned {answer!r}; expected a dictionary with 'grid', 'block' and scalars by name"
            )
        scalars = {p.name for p in self.scalars}
        unknown = answer.keys() - scalars - {*_LAUNCH}
        if unknown:
            raise LaunchError(f"{what} returned {sorted(unknown)[0]!r}, which is no scalar of {self.declared}")
        values = dict(options)
        for name in answer.keys() & scalars:
            if name in options:
                raise LaunchError(f"{what}: {name!r} was passed, and is computed by launch, too; leave one out")
            values[name] = answer[name]
        for name in scalars - values.keys():
            raise LaunchError(
                f"{what}: nobody gives the scalar {name!r} of {self.declared}: pass {name}=, or let launch return it"
            )
        floating = next((a.dtype.name for a, d in zip(arrays, self.contract.dtypes) if d is None), "float32")
        converted = tuple(self._convert(p, values[p.name], floating) for p in self.scalars)
        template = answer.get("template", ())
        template = (template,) if isinstance(template, str) else tuple(template)
        try:
            grid, block = (
                tuple(map(operator.index, n if isinstance(n, tuple) else (n,)))
                for n in (answer["grid"], answer["block"])
            )
            return Geometry(grid, block, converted, template, operator.index(answer.get("shared", 0)))
        except TypeError:
            raise LaunchError(
                f"{what} returned {answer!r}; expected a whole number or a tuple of them for grid and block, and bytes for shared"
            ) from None

    def _convert(self, parameter: Parameter, value: Any, floating: str) -> Any:
        dtype = floating if parameter.c_type == self.type else DTYPES.get(parameter.c_type)
        what = f"{self._launch.what}: scalar '{parameter}'"
        if dtype is None:
            if isinstance(value, numpy.ndarray) and value.size == 1 and value.dtype.names:
                return value
            raise LaunchError(f"{what} is {value!r}; expected a structured NumPy array of one element")
        return as_scalar(value, dtype, what)

    def expression(self, floating: str, geometry: Geometry) -> str:
        arguments = ((floating,) if self.type else ()) + geometry.template
        return f"{self.entry}<{', '.join(arguments)}>" if arguments else self.entry

    def pack(self, arrays: Sequence[Any], geometry: Geometry) -> tuple[Any, ...]:
        scalars = iter(geometry.scalars)
        return tuple(arrays[self._places[p.name]] if p.pointer else next(scalars) for p in self.declared.parameters)
