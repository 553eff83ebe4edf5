"""The supported BLAS libraries besides NumPy's: how they are found, loaded and called.

    mkl        Intel's Math Kernel Library (``pip install 'gpunet[mkl]'``)
    onednn     oneAPI Deep Neural Network Library, float32 only (``pip install 'gpunet[onednn]'``)

They are called through ctypes with the addresses of NumPy arrays.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from gpunet.backend.blas.openblas import shorten_waiting
from gpunet.backend.blas.operands import Operand

_MKL_CBWR_STRICT = 0x10000
_ROW_MAJOR, _NO_TRANS, _TRANS = 101, 111, 112  # CBLAS_LAYOUT, CBLAS_TRANSPOSE

Functions = dict["numpy.dtype[Any]", "Multiply"]


class Multiply(NamedTuple):
    """A library's GEMM function for one dtype."""

    function: Callable[..., Any]
    leading_arguments: tuple[Any, ...]
    transpose_codes: tuple[Any, Any]  # the arguments that say "not transposed" and "transposed"

    def bind(self, m: int, n: int, k: int, a: Operand, b: Operand, out: Operand) -> functools.partial[Any]:
        """Return a call that writes a @ b into out: a (m, k), b (k, n), out (m, n)."""
        codes = self.transpose_codes
        (x, a_transposed, lda), (y, b_transposed, ldb), (z, _, ldc) = a, b, out
        call = functools.partial(
            self.function, *self.leading_arguments, codes[a_transposed], codes[b_transposed], m, n, k,
            1.0, x.ctypes.data, lda, y.ctypes.data, ldb, 0.0, z.ctypes.data, ldc,
        )  # fmt: skip
        call.arrays = x, y, z  # type: ignore[attr-defined]  # which must live as long as their addresses
        return call


class Library(NamedTuple):
    """An installed library; ``load(path)`` returns its functions by dtype."""

    name: str
    distribution: str
    path: Path
    load: Callable[[Path], Functions]


def installed() -> list[Library]:
    """List the supported libraries that are installed."""
    found = []
    for name, distributions, prefix, load in _KNOWN if sys.platform == "linux" else ():
        for distribution in distributions:
            path = _find_file(distribution, prefix)
            if path is not None:
                found.append(Library(name, f"{distribution} {importlib.metadata.version(distribution)}", path, load))
                break
    return found


def _find_file(distribution: str, prefix: str) -> Path | None:
    """Find the file of an installed distribution whose name begins with ``prefix``."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = sorted(Path(str(f.locate())).resolve() for f in files if f.name.startswith(prefix))
    return next((p for p in paths if p.is_file()), None)


def _gemm_argtypes(leading: list[Any], integer: Any, number: Any) -> list[Any]:
    """Return the C types of the arguments: leading arguments, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc."""
    matrix = [ctypes.c_void_p, integer]
    return [*leading, *[integer] * 3, number, *matrix, *matrix, number, *matrix]


def _load_mkl(path: Path) -> Functions:
    library, functions = ctypes.CDLL(str(path)), {}
    shorten_waiting()
    # without this setting the last bits depend on the alignment of the operands
    library.MKL_CBWR_Set(library.MKL_CBWR_Get_Auto_Branch() | _MKL_CBWR_STRICT)
    for name, number, dtype in (("cblas_sgemm", ctypes.c_float, "float32"), ("cblas_dgemm", ctypes.c_double, "float64")):
        function = getattr(library, name)
        function.restype, function.argtypes = None, _gemm_argtypes([ctypes.c_int] * 3, ctypes.c_int, number)
        functions[numpy.dtype(dtype)] = Multiply(function, (_ROW_MAJOR,), (_NO_TRANS, _TRANS))
    return functions


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Inside the block, the process has further environment variables."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


#: How often threads of GNU OpenMP look for work before they sleep, unless the environment says it.  By default they look for
#: milliseconds after each product, and take the cores from NumPy's: on two cores, steps of LeNet then take 2.3 times as long,
#: those of 784-512-512-10 compiled 1.8 times.  Between 500 and 50,000 there is no difference that exceeds the noise.
SPINS = {"GOMP_SPINCOUNT": "2000"}
_SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@functools.cache
def open_onednn(path: Path) -> ctypes.CDLL:
    """Load oneDNN.

    Raises:
        OSError: it cannot be loaded.
    """
    is_set = any(name in os.environ for name in _SPIN_VARIABLES)
    with _environment({} if is_set else SPINS):  # OpenMP reads it once, when it is loaded
        library = ctypes.CDLL(str(path))
    shorten_waiting()
    # GNU OpenMP's threads do not survive a fork, and a child would wait for them forever.  The symbol found through oneDNN is
    # that of the OpenMP runtime it is linked to.
    os.register_at_fork(after_in_child=lambda: library.omp_set_num_threads(1))
    return library


def _load_onednn(path: Path) -> Functions:
    function = open_onednn(path).dnnl_sgemm
    function.argtypes = _gemm_argtypes([ctypes.c_char] * 2, ctypes.c_int64, ctypes.c_float)
    return {numpy.dtype("float32"): Multiply(function, (), (b"N", b"T"))}


#: Name, distributions that contain the library, prefix of its file name, loader.
_KNOWN = (
    ("mkl", ("mkl",), "libmkl_rt.so", _load_mkl),
    ("onednn", ("onednn-cpu-gomp", "onednn-cpu-iomp"), "libdnnl.so", _load_onednn),
)
NAMES = tuple(name for name, *_ in _KNOWN)
