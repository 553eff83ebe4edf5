"""Count the steps of an optimizer and those that a GradScaler skipped, in device memory."""

from __future__ import annotations

import numpy

from gpunet.autograd import COPY, make_tensor
from gpunet.backend import devices
from gpunet.backend.devices import Array, Device
from gpunet.launch.shims import Ufunc
from gpunet.launch.stateful import rely_on
from gpunet.launch.tape import unrecorded

_ADD = Ufunc("add")


class StepCounter:
    """Counts the steps of an optimizer.

    Attributes:
        counts: float64 (2,): all steps, and the skipped ones.
    """

    def __init__(self, device: Device) -> None:
        with unrecorded():  # replays go on counting
            self.counts = devices.zeros((2,), numpy.float64, device)

    def add(self, skip: Array | float = 0.0) -> None:
        """Count a step.

        Args:
            skip: float64 (1,) or a number, 1 if the step is skipped, else 0.
        """
        rely_on([self.counts])
        steps, skipped = self.counts[:1], self.counts[1:]
        _ADD(steps, steps, 1.0)
        _ADD(skipped, skipped, skip)

    def copy(self) -> Array:
        """Return a copy of the counts, for :meth:`all_skipped_since`."""
        with unrecorded():
            return self.counts.copy()

    def all_skipped_since(self, before: Array) -> Array:
        """Return float64 (1,), 1 if there were steps since ``before`` and all of them were skipped, else 0; update ``before``.

        Args:
            before: a :meth:`copy` of the counts.
        """
        rely_on([self.counts, before])
        steps, skipped = make_tensor(self.counts) - make_tensor(before)
        COPY(before, self.counts)
        result: Array = ((skipped > 0.0) & (skipped == steps)).double().reshape(1).array
        return result
