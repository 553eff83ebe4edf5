"""Kernels that compute the norm of a list of gradients and clip it, for ``gpunet.nn.utils``."""

from __future__ import annotations

import math

import numpy

from gpunet.launch import parts
from gpunet.launch.kernel import Geometry
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import scratch

_CHUNK = 32768  # elements per pass of the twin, few enough for the L2 cache


# ``grads`` is only read; it counts as an output because the lists of a launch come first.
@list_kernel(
    "clip.cu", outputs=3, lists=1, types={"norm": "A", "partials": "A", "ticket": "uint32"}, optional="partials ticket",
    updates="grads norm", workspace="partials", tickets="ticket",
)  # fmt: skip
def gradient_norm(grads, norm, partials, ticket, *, order, first, last):
    """norm (1,) = (sum |g|^order)^(1/order) over all elements of all tensors, or max |g| for order inf.

    ``first`` starts with norm = 0, else the launch adds to ``norm``; ``last`` takes the root.
    """
    combine = numpy.maximum if order == math.inf else numpy.add
    if first:
        norm.fill(0)
    for g in grads:
        g = g.reshape(-1)
        for start in range(0, g.size, _CHUNK):
            part = g[start : start + _CHUNK]
            powers, reduced = scratch(part.shape, part.dtype, 0), scratch((1,), part.dtype, 1)
            if order == 2:
                numpy.multiply(part, part, out=powers)
            else:
                numpy.absolute(part, out=powers)
                if order not in (1, math.inf):
                    numpy.power(powers, order, out=powers)
            combine.reduce(powers, keepdims=True, out=reduced)
            combine(norm, reduced, out=norm)
    if last and order == 2:
        numpy.sqrt(norm, out=norm)
    elif last and order not in (1, math.inf):
        numpy.power(norm, 1 / order, out=norm)


@gradient_norm.geometry
def _(grads, norm, partials, ticket, *, order, first, last):
    kind = {1.0: "Magnitudes", 2.0: "Squares", math.inf: "Largest"}.get(order, "Powers")
    return Geometry(0, 256, (float(order), int(first), int(last)), (kind,))


@gradient_norm.computes
def _(grads, norm, partials, ticket, *, order, first, last):
    return parts.Norm(grads, norm, order) if first and last else None


@list_kernel("clip.cu", outputs=1, lists=1, types={"norm": "A"}, updates="grads")
def clip_by_norm(grads, norm, *, max_norm):
    """g *= min(1, max_norm / (norm + 1e-6))."""
    factor = scratch((), norm.dtype, 0)
    numpy.add(norm.reshape(()), 1e-6, out=factor)
    numpy.divide(max_norm, factor, out=factor)
    numpy.minimum(factor, 1, out=factor)
    for g in grads:
        g *= factor


@clip_by_norm.geometry
def _(grads, norm, *, max_norm):
    return Geometry(0, 256, (float(max_norm),))


@clip_by_norm.computes
def _(grads, norm, *, max_norm):
    return parts.Clip(grads, norm, max_norm)


@list_kernel("clip.cu", outputs=1, lists=1, updates="grads")
def clip_by_value(grads, *, limit):
    """g = min(max(g, -limit), limit)."""
    for g in grads:
        numpy.maximum(g, -limit, out=g)
        numpy.minimum(g, limit, out=g)


@clip_by_value.geometry
def _(grads, *, limit):
    return Geometry(0, 256, (float(limit),))
