"""Libraries that multiply matrices, beside the one that NumPy calls: where they are, and how they are called.

    mkl        Intel's Math Kernel Library (``pip install 'gpunet[mkl]'``)
    onednn     oneAPI Deep Neural Network Library, float32 only (``pip install 'gpunet[onednn]'``)

They are called by ctypes, on addresses: arrays stay NumPy's.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy

_MKL_CBWR_STRICT = 0x10000
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # of CBLAS

Functions = dict["numpy.dtype[Any]", "Multiply"]


class Operand(NamedTuple):
    """A matrix in memory: where (this keeps its array), whether its columns lie there as rows, and their distance in elements."""

    address: ctypes.c_void_p
    transposed: bool
    distance: int


def operand(x: numpy.ndarray, distance: int, transposed: bool = False) -> Operand:
    return Operand(x.ctypes.data_as(ctypes.c_void_p), transposed, distance)


class Multiply(NamedTuple):
    """A library's function for one dtype."""

    function: Callable[..., Any]
    first: tuple[Any, ...]  # its first arguments
    codes: tuple[Any, Any]  # what it calls a matrix as it is, and one that is transposed

    def prepared(self, m: int, n: int, k: int, a: Operand, b: Operand, out: Operand) -> functools.partial[Any]:
        """The call that writes the product of a (m, k) and b (k, n) into out (m, n)."""
        return functools.partial(
            self.function, *self.first, self.codes[a.transposed], self.codes[b.transposed], m, n, k,
            1.0, a.address, a.distance, b.address, b.distance, 0.0, out.address, out.distance,
        )  # fmt: skip


class Library(NamedTuple):
    """A library that was found; ``load`` gives its functions by dtype."""

    name: str
    distribution: str
    path: Path
    load: Callable[[Path], Functions]


def installed() -> list[Library]:
    """The libraries of this machine."""
    found = []
    for name, distributions, prefix, load in _KNOWN if sys.platform == "linux" else ():
        for distribution in distributions:
            path = _file(distribution, prefix)
            if path is not None:
                found.append(Library(name, f"{distribution} {importlib.metadata.version(distribution)}", path, load))
                break
    return found


def _file(distribution: str, prefix: str) -> Path | None:
    """The file of an installed distribution whose name begins so."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = sorted(Path(str(f.locate())).resolve() for f in files if f.name.startswith(prefix))
    return next((p for p in paths if p.is_file()), None)


def _arguments(leading: list[Any], integer: Any, number: Any) -> list[Any]:
    """C types: what leads, m, n, k, alpha, a and its distance, b and its, beta, the result and its."""
    matrix = [ctypes.c_void_p, integer]
    return [*leading, *[integer] * 3, number, *matrix, *matrix, number, *matrix]


def _load_mkl(path: Path) -> Functions:
    library, functions = ctypes.CDLL(str(path)), {}
    # without this the last bits depend on where in memory the operands begin
    library.MKL_CBWR_Set(library.MKL_CBWR_Get_Auto_Branch() | _MKL_CBWR_STRICT)
    for name, number, dtype in (("cblas_sgemm", ctypes.c_float, "float32"), ("cblas_dgemm", ctypes.c_double, "float64")):
        function = getattr(library, name)
        function.restype, function.argtypes = None, _arguments([ctypes.c_int] * 3, ctypes.c_int, number)
        functions[numpy.dtype(dtype)] = Multiply(function, (_ROW_MAJOR,), (_PLAIN, _TRANSPOSED))
    return functions


def _load_onednn(path: Path) -> Functions:
    library = ctypes.CDLL(str(path))
    function = library.dnnl_sgemm
    # the threads of GNU OpenMP are not in a forked child, which would wait for them; the symbol is the one that oneDNN is linked to
    os.register_at_fork(after_in_child=lambda: library.omp_set_num_threads(1))
    function.argtypes = _arguments([ctypes.c_char] * 2, ctypes.c_int64, ctypes.c_float)
    return {numpy.dtype("float32"): Multiply(function, (), (b"N", b"T"))}


#: Name, the distributions that hold it, how its file's name begins, and what loads it.
_KNOWN = (
    ("mkl", ("mkl",), "libmkl_rt.so", _load_mkl),
    ("onednn", ("onednn-cpu-gomp", "onednn-cpu-iomp"), "libdnnl.so", _load_onednn),
)
NAMES = tuple(name for name, *_ in _KNOWN)
