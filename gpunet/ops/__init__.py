"""The ops, one file per family.  Importing this package imports them all, which attaches the methods to Tensor."""

import importlib
import pkgutil

#: Modules that are imported on first use: they define no methods of Tensor, and few programs need them.
_LAZY = (
    "control_flow", "counts", "custom", "custom_kernel", "differences", "eigen", "exchange", "fourier", "grouped", "ldl",
    "low_rank", "matrix_functions", "native", "native_losses", "orthogonal_polynomials", "segments", "storage", "window_functions",
)  # fmt: skip

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg):
    if _name not in _LAZY:
        importlib.import_module(f"{__name__}.{_name}")
