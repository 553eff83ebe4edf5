"""Learning-rate schedules with PyTorch's names, signatures and numbers.

    schedule = gpunet.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    for inputs, targets in batches:
        ...
        optimizer.step()
        schedule.step()

``schedule.step()`` of a schedule that is a formula is a launch on buffers.  It may be part of a recorded step, whose
replays then update the learning rate and the momentum.  ``group["lr"]``, ``get_last_lr()`` and ``last_epoch`` read the
buffers.
"""

from gpunet.optim.lr_scheduler.combined import *
from gpunet.optim.lr_scheduler.combined import __all__ as _combined_names
from gpunet.optim.lr_scheduler.formulas import *
from gpunet.optim.lr_scheduler.formulas import __all__ as _formulas_names
from gpunet.optim.lr_scheduler.python import *
from gpunet.optim.lr_scheduler.python import __all__ as _python_names
from gpunet.optim.lr_scheduler.scheduler import *
from gpunet.optim.lr_scheduler.scheduler import __all__ as _scheduler_names
from gpunet.optim.lr_scheduler.scheduler import _LRScheduler

__all__ = [*_combined_names, *_formulas_names, *_python_names, *_scheduler_names]


def __dir__() -> list[str]:
    return sorted(__all__)
