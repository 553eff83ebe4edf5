"""The last linear layer of a classifier and softmax cross-entropy against labels, in one launch of a captured step."""

from __future__ import annotations

from typing import Any

import numpy

from gpunet.launch.kernel import Arguments, Geometry, Kernel, kernel
from gpunet.ops.cross_entropy import cross_entropy_labels
from gpunet.ops.gemm import Cut, cut_of, geometry, whole_flag
from gpunet.ops.linear import linear_forward
from gpunet.ops.losses import MAX_BLOCKS

#: Rows of a partial sum of the losses, as in cross_entropy_labels, which has a warp for each row of up to 8192.
_ROWS_OF_PARTIAL = 8


@kernel(
    "linear_loss.cu",
    outputs=9,
    types={
        "factor": "A", "losses": "A", "ticket": "uint32", "fault": "int64", "partials": "A", "tickets": "uint32", "labels": "int64"
    },
    optional="factor losses ticket fault partials tickets b",
    reads_values=True,
    updates="fault", workspace="losses partials", tickets="ticket tickets",
)  # fmt: skip
def linear_forward_loss(
    y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, reduction, ignore_index, code, cut=None
):
    """y = x w^T + b, then value, dx and factor of ``cross_entropy_labels`` of y; see there and ``linear_forward``.

    x (n, i), w (o, i), b (o,), labels (n,) -> y, dx (n, o).  A tile has at least o columns, and n is 8192 at most.
    """
    linear_forward.twin(y, None, None, None, x, w, b, activation="identity", alpha=0.0)
    cross_entropy_labels.twin(
        value, dx, factor, None, None, fault, y, labels, reduction=reduction, ignore_index=ignore_index, code=code
    )


@linear_forward_loss.geometry
def _(
    y, value, dx, factor, losses, ticket, fault, partials, tickets, x, w, b, labels, *, reduction, ignore_index, code, cut=None
) -> Geometry:
    (n, o), i = y.shape, x.shape[1]
    cut = cut_of(cut, x, n, o, i)
    scalars = numpy.int64(ignore_index), numpy.int32(code)
    return geometry(n, o, i, cut, scalars, whole_flag(x, w, pack=cut.pack(x.itemsize)), f"Reduction::{reduction}")


@linear_forward.waits_for(cross_entropy_labels)
def _(launch: Arguments, loss: Arguments) -> tuple[Kernel, Arguments] | None:
    """The loss of the result of a layer without an activation, of which a tile has all columns."""
    y, z, partials, tickets, x, w, b = launch.arrays
    *results, logits, labels = loss.arrays
    cut: Cut | None = launch.options.get("cut")
    if cut is None or z is not None or launch.options["activation"] != "identity" or logits != y:
        return None
    if not 0 < y.shape[0] <= MAX_BLOCKS * _ROWS_OF_PARTIAL or y.shape[1] > cut.columns:
        return None
    arrays: Any = (y, *results, partials, tickets, x, w, b, labels)
    return linear_forward_loss, Arguments(arrays, {**loss.options, "cut": cut})
