"""Images: models, transforms, data sets from local files, boxes and grids of images, with torchvision's names."""

from gpunet.vision import datasets, models, ops, transforms, tv_tensors, utils

__all__ = ["datasets", "models", "ops", "transforms", "tv_tensors", "utils"]


def __dir__() -> list[str]:
    return sorted(__all__)
