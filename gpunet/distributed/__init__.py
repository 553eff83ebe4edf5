"""Training in several processes: process groups and collectives, with the names of ``torch.distributed``, over MPI."""

from gpunet.distributed.collectives import *
from gpunet.distributed.collectives import __all__ as _collective_names
from gpunet.distributed.objects import *
from gpunet.distributed.objects import __all__ as _object_names
from gpunet.distributed.process_group import *
from gpunet.distributed.process_group import __all__ as _group_names

__all__ = [*_collective_names, *_group_names, *_object_names]
