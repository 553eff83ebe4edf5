"""Functional forms, with the names of torchvision.transforms.v2.functional.

They take PIL images, tensors, and the classes of :mod:`gpunet.vision.tv_tensors`: geometry moves boxes and masks too, boxes are
clamped to the image, masks take the nearest pixel; colours leave both as they are.  Of a tensor of more than three dimensions the
first is the batch, and numbers, such as an angle, may be tensors (batch,): one for each sample.
"""

from gpunet.vision.transforms.functional.boxes import *
from gpunet.vision.transforms.functional.boxes import __all__ as _box_names
from gpunet.vision.transforms.functional.conversions import *
from gpunet.vision.transforms.functional.conversions import __all__ as _conversion_names
from gpunet.vision.transforms.functional.geometry import *
from gpunet.vision.transforms.functional.geometry import __all__ as _geometry_names
from gpunet.vision.transforms.functional.inputs import *
from gpunet.vision.transforms.functional.inputs import __all__ as _input_names
from gpunet.vision.transforms.functional.pixels import *
from gpunet.vision.transforms.functional.pixels import __all__ as _pixel_names

__all__ = [*_box_names, *_conversion_names, *_geometry_names, *_input_names, *_pixel_names]
