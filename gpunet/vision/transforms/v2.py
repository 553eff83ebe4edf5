"""torchvision's name of these transforms, which are those of its v2."""

from gpunet.vision.transforms import *  # noqa: F403
from gpunet.vision.transforms import __all__  # noqa: F401
