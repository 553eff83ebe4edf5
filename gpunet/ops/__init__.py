"""The ops, one file per family.  Importing this package imports them all, which attaches the methods to Tensor."""

import importlib
import pkgutil

#: Modules that are imported on first use: they define no methods of Tensor, and few programs need them.
_LAZY = ("custom", "custom_kernel", "fourier", "matrix_functions", "orthogonal_polynomials", "storage", "window_functions")

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg):
    if _name not in _LAZY:
        importlib.import_module(f"{__name__}.{_name}")
