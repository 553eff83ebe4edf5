"""The specialisations of each kernel that docs/kernels.md shows, and the hot kernels."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

from gpunet.launch.kernel import Kernel
from gpunet.tools import kernel_cases

#: Hot kernels: those that take most of the time of a training step.
HOT = ("linear_*", "matmul_*", "cross_entropy_*", "activation_*", "adam_step", "sgd_step")

#: Patterns of the specialisations to show, by kernel; of other kernels all are shown.
REPRESENTATIVES = {
    "linear_forward": ("*, Relu>", "*, Gelu>"),
    "linear_backward_input": ("*, Relu>", "*, Gelu>"),
    "activation_forward": ("*, Relu>", "*, Gelu>", "*, Tanh>"),
    "activation_backward": ("*, Relu>", "*, Gelu>", "*, Tanh>"),
    "matmul_forward": ("*, true, false>", "*, true, true>", "*, false, false>"),  # the product and its two gradients
    "elementwise_loss": ("*::mean>",),
    "cross_entropy_labels": ("*::mean, *",),
    "cross_entropy_soft": ("*::mean, *",),
    "sgd_step": ("*, false, false, false>", "*, true, false, false>"),
    # Adam, AdamW, AMSGrad
    "adam_step": ("*, false, false, false>", "*, false, true, false>", "*, true, false, false>"),
}


@cache
def specialisations(kernel: Kernel) -> tuple[str, ...]:
    """All specialisations that the cases of a kernel select. The table and its test compile them together."""
    return tuple(sorted({case.expression() for case in kernel_cases.cases(kernel)}, key=_order))


@cache
def representatives(kernel: Kernel) -> tuple[str, ...]:
    """The specialisations of a kernel to show in the tables."""
    patterns = REPRESENTATIVES.get(kernel.name, ("*",))
    return tuple(e for e in specialisations(kernel) if any(fnmatchcase(e, p) for p in patterns))


def _order(expression: str) -> list[tuple[int, int, str]]:
    """Sort key: float before double, 64 before 128, then alphabetically."""
    words = re.findall(r"\w+", expression)
    return [(word == "double", int(word) if word.isdecimal() else 0, word) for word in words]


def is_hot(expression: str) -> bool:
    """Whether a specialisation belongs to a hot kernel."""
    return any(fnmatchcase(expression.partition("<")[0], pattern) for pattern in HOT)
