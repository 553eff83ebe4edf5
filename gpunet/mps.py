"""Functions of ``torch.mps``, whose device is never available."""

from gpunet.backends.mps import is_available
from gpunet.launch.synchronize import synchronize


def manual_seed(seed: int) -> None:
    """Do nothing: there is no such device."""


def empty_cache() -> None:
    """Do nothing: there is no such device."""
