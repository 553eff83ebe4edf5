"""Networks for images, with torchvision's names, arguments and ``state_dict`` keys; without pretrained weights.

LeNet and the ResNets for small images (``resnet20`` to ``resnet56``), which torchvision lacks, stand here, too.
"""

from typing import Any

from gpunet.errors import MissingNameError
from gpunet.vision.models import alexnet as _alexnet
from gpunet.vision.models import lenet as _lenet
from gpunet.vision.models import mobilenetv2, resnet, resnet_cifar, vgg, vision_transformer
from gpunet.vision.models.alexnet import *
from gpunet.vision.models.lenet import *
from gpunet.vision.models.mobilenetv2 import *
from gpunet.vision.models.resnet import *
from gpunet.vision.models.resnet_cifar import *
from gpunet.vision.models.vgg import *
from gpunet.vision.models.vision_transformer import *

__all__ = ["mobilenetv2", "resnet", "resnet_cifar", "vgg", "vision_transformer"]
__all__ += _alexnet.__all__
__all__ += _lenet.__all__
__all__ += mobilenetv2.__all__
__all__ += resnet.__all__
__all__ += resnet_cifar.__all__
__all__ += vgg.__all__
__all__ += vision_transformer.__all__


def __getattr__(name: str) -> Any:
    if name.endswith("_Weights"):
        raise MissingNameError(
            f"gpunet.vision.models.{name}: there are no pretrained weights, because nothing is downloaded; build the model "
            "without weights=, and load a safetensors file by model.load_state_dict(gpunet.load(path))"
        )
    raise AttributeError(f"module 'gpunet.vision.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
