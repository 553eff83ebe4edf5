"""Importing gpunet.ops imports every family of ops, and none of the facts that only tools need."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import gpunet.ops, gpunet.optim
from gpunet.autograd import Tensor
from gpunet.launch.kernel import KERNELS
assert {"softmax", "log_softmax", "erf"} <= set(dir(Tensor))
assert {"clip.cu", "special.cu", "dropout.cu"} <= {kernel.file for kernel in KERNELS.values()}
assert not any(kernel.case_makers for kernel in KERNELS.values())
assert not [name for name in sys.modules if name.startswith(("gpunet.ops.custom", "gpunet.ops.cases", "gpunet.optim.cases"))]
"""


def test_import_attaches_methods_and_registers_kernels_but_no_custom_ops() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
