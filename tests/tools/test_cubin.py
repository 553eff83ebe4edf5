"""The parameters of every kernel in its cubin are those that a launch packs."""

from __future__ import annotations

import numpy
import pytest

from gpunet.backend import compiler, cuda_sources
from gpunet.errors import CompileError
from gpunet.launch.kernel import KERNELS, Geometry, Kernel
from gpunet.launch.list_kernel import LARGE_TABLE, table_dtype
from gpunet.tools.cubin import packed, parameters
from gpunet.tools.kernel_cases import specialisations
from tests.backend.test_cuda_sources import needs_nvrtc
from tests.tools.launch_interface import differences


@needs_nvrtc
@pytest.mark.parametrize("name", KERNELS)
def test_a_launch_packs_what_the_kernel_expects(name: str) -> None:
    """One specialisation; test_cuda_sources.py compares all."""
    expression = specialisations(KERNELS[name], "representative")[0]
    code, lowered, _ = compiler.compile_all(KERNELS[name].file, [expression], "sm_90a")
    assert differences(KERNELS[name], code, lowered, "representative") == []


SOURCE = """
struct Wide { double first; char filling[20000]; };
template <class T> __global__ void scale(T* y, const T* x, int rows, double by, bool flag, short few) { y[0] = x[rows] * by; }
__global__ void wide(float* y, Wide value) { y[0] = value.filling[0]; }
"""


@needs_nvrtc
@pytest.mark.parametrize("architecture", ["sm_80", "sm_120"])  # sm_120 has flags beside the size of large parameters
def test_parameters_are_read_from_a_cubin(architecture: str) -> None:
    source = cuda_sources.Source("scale.cu", SOURCE)
    code, lowered, _ = compiler.compile_all(source, ["scale<float>", "wide"], architecture)
    found = parameters(code)
    assert found[lowered["scale<float>"]] == [(0, 8), (8, 8), (16, 4), (24, 8), (32, 1), (34, 2)]
    assert found[lowered["wide"]] == [(0, 8), (8, 20008)]
    with pytest.raises(CompileError, match="expected a cubin"):
        parameters(b"PK")


def test_arguments_are_laid_out_as_in_c() -> None:
    arguments = [object(), numpy.bool_(True), numpy.int16(1), numpy.int32(1), numpy.float64(1.0)]
    assert packed(arguments) == [(0, 8), (8, 1), (10, 2), (12, 4), (16, 8)]
    table = table_dtype(2, LARGE_TABLE)
    assert packed([numpy.int32(1), numpy.zeros(1, table), numpy.int32(1)]) == [(0, 4), (8, table.itemsize), (8 + table.itemsize, 4)]


@needs_nvrtc
def test_a_launch_that_packs_another_type_is_reported() -> None:
    def scale(y, x, *, rows):
        """Never runs."""

    planted = Kernel(scale, cuda_sources.Source("scale.cu", SOURCE), 1, {})
    scalars = [1, 1.0, numpy.bool_(True), numpy.int16(1)]
    planted.geometry(lambda y, x, *, rows: Geometry(1, 32, tuple(scalars)))

    @planted.cases("edge")
    def _(s):
        yield "(4,)", [s.blank(4), s.normal(4)], {"rows": 1}

    code, lowered, _ = compiler.compile_all(planted.file, ["scale<float>"], "sm_90a")
    assert differences(planted, code, lowered) == []
    assert differences(planted, code, {"scale<char>": "other"}) == ["scale<char>: no case launches it"]
    scalars[0] = numpy.int64(1)
    assert "packs" in differences(planted, code, lowered)[0]
    scalars[0:1] = []
    assert "packs" in differences(planted, code, lowered)[0]
