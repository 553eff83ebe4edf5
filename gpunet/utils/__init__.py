"""PyTorch's ``utils``."""

from gpunet.utils import data

__all__ = ["data"]


def __dir__() -> list[str]:
    return sorted(__all__)
