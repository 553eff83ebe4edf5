"""Samples of collectives with a gradient, of a process alone."""

from __future__ import annotations

from gpunet.distributed.collectives import sum_over_processes
from gpunet.distributed.process_group import ProcessGroup
from tests.samples.inputs import ROWS, normal
from tests.samples.row import row

row("sum_over_processes", lambda x: sum_over_processes(x, group=ProcessGroup.alone()), lambda x: x, normal(ROWS, 4))
