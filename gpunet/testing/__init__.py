"""Tests of CUDA kernels without a GPU: CuPy's RawModule on NumPy arrays, and the pytest fixture that makes one.

from gpunet.testing import RawModule

module = RawModule(code=source)                       # as cupy.RawModule
module.get_function("scale<float>")((4,), (256,), (y, x, numpy.float32(2), numpy.int32(1000)))
"""

from gpunet.testing.raw_module import RawFunction, RawModule

__all__ = ["RawFunction", "RawModule"]
