"""The facts of the kernels of ops, one file per family: cases, cost, PyTorch equivalent, known waste (``launch.facts``).

The cases with the tag "edge" select all specialisations of a kernel.  The tests compile the selected specialisations, the
emulator runs the cases, and ``gpunet selftest`` runs them on a GPU.  They use ragged sizes, empty arrays where the kernel
allows them, every optional array as None, every array once off alignment, and grids so small that grid-stride loops
iterate.  ``python -m tests.mutation`` finds errors in a kernel that no case detects.

Importing this package imports all families, which gives the kernels their facts; ``import gpunet`` does not.
"""

import importlib
import pkgutil

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
