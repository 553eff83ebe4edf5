"""Test CUDA kernels without a GPU: ``RawModule`` with CuPy's interface on NumPy arrays, and a pytest fixture for it.

from gpunet.testing import RawModule

module = RawModule(code=source)                       # like cupy.RawModule
module.get_function("scale<float>")((4,), (256,), (y, x, numpy.float32(2), numpy.int32(1000)))
"""

from gpunet.testing.raw_module import RawFunction, RawModule

__all__ = ["RawFunction", "RawModule"]
