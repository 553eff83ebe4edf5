"""PyTorch's ``utils``."""

from gpunet.utils import checkpoint, data

__all__ = ["checkpoint", "data"]


def __dir__() -> list[str]:
    return sorted(__all__)
