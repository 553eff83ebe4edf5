"""Networks that are no classifiers of images: GPT, U-Net, autoencoder, variational autoencoder."""

from gpunet.models import autoencoder, gpt, unet
from gpunet.models.autoencoder import *
from gpunet.models.gpt import *
from gpunet.models.unet import *

__all__ = autoencoder.__all__ + gpt.__all__ + unet.__all__


def __dir__() -> list[str]:
    return sorted(__all__)
