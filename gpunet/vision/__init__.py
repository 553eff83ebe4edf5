"""Images: transforms, data sets from local files and grids of images, with torchvision's names."""

from gpunet.vision import datasets, transforms, utils

__all__ = ["datasets", "transforms", "utils"]


def __dir__() -> list[str]:
    return sorted(__all__)
