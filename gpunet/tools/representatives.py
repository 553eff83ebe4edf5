"""Which specialisations stand for a kernel on docs/kernels.md, and which kernels are hot."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

from gpunet.launch.kernel import Kernel
from gpunet.tools import kernel_cases

#: Kernels whose time counts in a training step.
HOT = ("linear_*", "matmul_*", "cross_entropy_*", "activation_*", "adam_step", "sgd_step")

#: Specialisations that stand for the others; of kernels that are not named, all do.
REPRESENTATIVES = {
    "linear_forward": ("*, Relu>", "*, Gelu>"),
    "linear_backward_input": ("*, Relu>", "*, Gelu>"),
    "activation_forward": ("*, Relu>", "*, Gelu>", "*, Tanh>"),
    "activation_backward": ("*, Relu>", "*, Gelu>", "*, Tanh>"),
    "matmul_forward": ("*, true, false>", "*, true, true>", "*, false, false>"),  # of a product, and of its gradients
    "elementwise_loss": ("*::mean>",),
    "cross_entropy_labels": ("*::mean, *",),
    "cross_entropy_soft": ("*::mean, *",),
    "sgd_step": ("*, false, false, false>", "*, true, false, false>"),
    # Adam, AdamW, AMSGrad
    "adam_step": ("*, false, false, false>", "*, false, true, false>", "*, true, false, false>"),
}


@cache
def specialisations(kernel: Kernel) -> tuple[str, ...]:
    """All specialisations that a kernel's cases select.  They are compiled together, for the table and for its test."""
    return tuple(sorted({case.expression() for case in kernel_cases.cases(kernel)}, key=_order))


@cache
def representatives(kernel: Kernel) -> tuple[str, ...]:
    """The specialisations of a kernel that the table shows."""
    patterns = REPRESENTATIVES.get(kernel.name, ("*",))
    return tuple(e for e in specialisations(kernel) if any(fnmatchcase(e, p) for p in patterns))


def _order(expression: str) -> list[tuple[int, int, str]]:
    """float before double, 64 before 128, then the alphabet."""
    words = re.findall(r"\w+", expression)
    return [(word == "double", int(word) if word.isdecimal() else 0, word) for word in words]


def is_hot(expression: str) -> bool:
    return any(fnmatchcase(expression.partition("<")[0], pattern) for pattern in HOT)
