"""The launch that moves averages of tensors towards their values: exponential and equal averages of a model's weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy

from gpunet.autograd import Tensor, bump_version, contiguous, contiguous_in_place, no_grad
from gpunet.backend.dtypes import is_floating
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel, max_tensors
from gpunet.launch.memory import chunks, scratch
from gpunet.optim.update import elements, scalars


@list_kernel("optimizers.cu", outputs=1, lists=2, types={"weight": "float64"}, updates="averages")
def average_step(averages, values, weight):
    """averages = (1 - weight) averages + weight values.

    Args:
        weight: (1,), in memory, so that replays use its current value.
    """
    (weight,) = elements(weight)
    rest, share = scalars(averages[0].dtype, 1.0 - weight, weight)
    for tensor, value in zip(averages, values):
        for a, b in chunks([tensor.reshape(-1), value.reshape(-1)]):
            part = numpy.multiply(b, share, out=scratch(b.shape, b.dtype, 0))
            a *= rest
            a += part


@average_step.geometry
def _(averages, values, weight):
    return Geometry(0, 256)


@no_grad()
def move_averages(averages: Sequence[Tensor], values: Sequence[Tensor], weight: Tensor) -> None:
    """Let each average be (1 - weight) * average + weight * value, in place.

    Args:
        averages, values: tensors of equal shapes, dtypes and devices, which may differ from pair to pair.  Floating ones take one
            launch for all of a dtype and device; the average of integers is rounded toward zero.
        weight: float64, of one element.
    """
    pairs: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for a, b in zip(averages, values, strict=True):
        if is_floating(a.dtype):
            pairs[a.dtype, a.device].append((a, b))
        else:
            near = weight.to(a.device)
            a.copy_(a.double() * (1.0 - near) + b.double() * near)
    for (_, device), group in pairs.items():
        limit = max_tensors(group[0][0].array)
        for start in range(0, len(group), limit):
            part = group[start : start + limit]
            targets = [a for a, _ in part]
            with contiguous_in_place(targets):
                average_step(
                    [a.array for a in targets], [contiguous(b.array) for _, b in part], weight.to(device).reshape(1).array
                )
            bump_version(*targets)
