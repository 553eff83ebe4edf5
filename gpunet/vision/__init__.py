"""Images: models, transforms, data sets from local files and grids of images, with torchvision's names."""

from gpunet.vision import datasets, models, transforms, utils

__all__ = ["datasets", "models", "transforms", "utils"]


def __dir__() -> list[str]:
    return sorted(__all__)
