"""Importing gpunet.ops imports every family of ops."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import gpunet.ops
from gpunet.autograd import Tensor
from gpunet.launch.kernel import KERNELS
assert {"softmax", "log_softmax", "erf"} <= set(dir(Tensor))
assert {"gradient_norm", "clip_by_norm", "erf_forward", "dropout_apply"} <= set(KERNELS), set(KERNELS)
assert not [name for name in sys.modules if name.startswith(("gpunet.ops.custom", "gpunet.ops.cases"))]
"""


def test_import_attaches_methods_and_registers_kernels_but_no_custom_ops() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
