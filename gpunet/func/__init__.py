"""Transforms of functions: gradients, products with Jacobians, Jacobians, batches, and modules as functions (``torch.func``)."""

from gpunet.func import batching, forward, jacobians, modules, rearranging, reverse, wrappers
from gpunet.func.batching import *
from gpunet.func.forward import *
from gpunet.func.jacobians import *
from gpunet.func.modules import *
from gpunet.func.rearranging import *
from gpunet.func.reverse import *
from gpunet.func.wrappers import *

__all__ = [
    *batching.__all__, *forward.__all__, *jacobians.__all__, *modules.__all__, *rearranging.__all__, *reverse.__all__,
    *wrappers.__all__,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
