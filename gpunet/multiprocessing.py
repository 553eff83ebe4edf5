"""``torch.multiprocessing``: Python's module; tensors are copied between processes."""

from multiprocessing import *

from gpunet.launch.spawn import ProcessContext, spawn
