"""Kernels of loss scaling: unscale gradients and find those that are not finite, and adapt the scale."""

from __future__ import annotations

import struct
import weakref
from typing import Any

import numpy

from gpunet.errors import GradientError
from gpunet.launch.faults import Fault, fault_code, report_first
from gpunet.launch.kernel import Geometry, kernel
from gpunet.launch.list_kernel import list_kernel
from gpunet.launch.memory import chunks, scratch

#: GradScalers by their numbers, by which a kernel reports them.
SCALERS: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


@list_kernel(
    "scaling.cu", outputs=3, lists=1, types={"found": "float64", "partials": "uint32", "ticket": "uint32", "scale": "float32"},
    optional="partials ticket", updates="grads found", workspace="partials", tickets="ticket",
)  # fmt: skip
def unscale_gradients(grads, found, partials, ticket, scale, *, first):
    """g /= scale;  found (1,) = 1 if an element of any g was infinite or NaN, else 0 if ``first``, else as it was."""
    dtype = grads[0].dtype
    factor = numpy.divide(1.0, scale.reshape(()), out=scratch((), scale.dtype, 0))
    total, term = scratch((), dtype, 1), scratch((), dtype, 2)
    total.fill(0)
    for g in grads:
        for (part,) in chunks([g.reshape(-1)]):
            zeros = numpy.multiply(part, 0, out=scratch(part.shape, dtype, 3))  # but NaN where it is infinite or NaN
            numpy.add.reduce(zeros, out=term)
            total += term
            part *= factor
    before = 0.0 if first else found
    numpy.copyto(found, numpy.where(total != total, 1.0, before))


@unscale_gradients.geometry
def _(grads, found, partials, ticket, scale, *, first):
    return Geometry(0, 256, (int(first),))


@kernel(
    "scaling.cu", outputs=3, types={"scale": "float32", "counters": "int64", "record": "int64", "found": "float64"},
    optional="record", reads_values=True,
    updates="scale counters record",
)  # fmt: skip
def update_scale(scale, counters, record, found, *, growth, backoff, interval, max_skips, number):
    """Multiply the scale by ``backoff`` if ``found`` is not 0, else by ``growth`` in each ``interval``-th step in a row.

    A scale that would overflow does not grow.  Each ``max_skips``-th skipped step in a row is an error: it is reported in
    ``record``, or without one raised.

    Args:
        scale: float32 (1,).
        record: see :func:`gpunet.launch.faults.fault_record`; None on the CPU.
        counters: the finite steps since the scale changed, and the skipped steps in a row.
        number: of the scaler in SCALERS.
    """
    before, is_skipped = float(scale[0]), found[0] != 0.0
    finite, skips = (0, int(counters[1]) + 1) if is_skipped else (int(counters[0]) + 1, 0)
    grown = numpy.float32(before * growth)
    if is_skipped:
        scale[0] = before * backoff
    elif finite == interval and numpy.isfinite(grown):
        scale[0] = grown
    counters[:] = 0 if finite == interval else finite, skips
    if is_skipped and skips % max_skips == 0:
        bits = _bits_of(before)
        if record is None:
            raise _too_many_skips(Fault(skips, 0, bits, number))
        report_first(record, numpy.array([True]), _CODE, numpy.array([skips]), bits, number)


@update_scale.geometry
def _(scale, counters, record, found, *, growth, backoff, interval, max_skips, number):
    return Geometry(1, 32, (float(growth), float(backoff), interval, max_skips, _CODE, number))


def _bits_of(scale: float) -> int:
    (bits,) = struct.unpack("i", struct.pack("f", scale))
    return int(bits)


def _too_many_skips(fault: Fault) -> GradientError:
    """Make the error of ``value`` skipped steps in a row; ``size`` has the bits of the scale, ``detail`` the scaler's number."""
    (scale,) = struct.unpack("f", struct.pack("i", fault.size))
    scaler = SCALERS.get(fault.detail)
    names = "an optimizer" if scaler is None else " and ".join(scaler.names_of_optimizers())
    return GradientError(
        f"GradScaler: the last {fault.value} steps of {names} were skipped, the last at a scale of {scale:g}, because gradients "
        "were infinite or NaN. So the loss itself or its derivative is: gpunet.autograd.detect_anomaly() names the op, and "
        "autocast(dtype=gpunet.bfloat16) has the range of float32"
    )


_CODE = fault_code(_too_many_skips)
