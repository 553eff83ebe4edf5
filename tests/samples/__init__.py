"""One table, a row an op and specialisation: how to call it, on what, and the same thing as a plain NumPy formula.

    row("log", gpunet.log, numpy.log, positive(ROWS, 4), torch="log")

* ``call`` runs on gpunet tensors, ``formula`` on float64 NumPy arrays and knows nothing of the library;
* inputs are factories of ``inputs``;
* a shape that begins with ROWS is also tried with 0 and 1 rows;
* ``torch`` is a function of (torch, *tensors), the name of one in ``torch``, or SAME: ``call`` runs on its tensors, too;
* ``same`` is a row whose one expression runs on tensors of gpunet, arrays of NumPy and tensors of PyTorch.

``test_ops.py`` makes its tests of this table; ``test_contracts.py`` fails for an op without a row.
"""

from tests.samples import (
    activations,
    cross_entropy,
    dropout,
    elementwise,
    index,
    join,
    linear,
    losses,
    matmul,
    reduce,
    shape,
    softmax,
)
from tests.samples.activations import ACTIVATIONS
from tests.samples.row import SAMPLES, Sample
