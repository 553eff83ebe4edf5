"""Sweeps: many nets with different hyperparameters, trained as stacks, spread over processes, killed and resumed."""

from gpunet.sweeps.ranges import *
from gpunet.sweeps.ranges import __all__ as _ranges_names
from gpunet.sweeps.result import *
from gpunet.sweeps.result import __all__ as _result_names
from gpunet.sweeps.run import *
from gpunet.sweeps.run import __all__ as _run_names

__all__ = [*_ranges_names, *_result_names, *_run_names]


def __dir__() -> list[str]:
    return sorted(__all__)
