"""A table with a row per op and variant: the call, its inputs, and a plain NumPy formula of the result.

    row("log", gpunet.log, numpy.log, positive(ROWS, 4), torch="log")

* ``call`` takes gpunet tensors; ``formula`` takes float64 NumPy arrays and does not use the library.
* Inputs come from the factories in ``inputs``.
* A shape that begins with ROWS is also tested with 0 rows and 1 row.
* ``torch`` is a function of (torch, *tensors), the name of a function in ``torch``, or SAME if ``call`` also accepts
  PyTorch tensors.
* ``same`` adds a row whose call works on gpunet tensors, NumPy arrays and PyTorch tensors alike.

``test_ops.py`` generates its tests from this table; ``test_contracts.py`` fails if an op has no row.
"""

import importlib
import pkgutil

from tests.samples.activations import ACTIVATIONS
from tests.samples.row import SAMPLES, Sample

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
