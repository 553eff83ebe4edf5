"""Metrics: how well a model does, added up over batches on the device, with torchmetrics' interface."""

from gpunet.metrics.classification import *
from gpunet.metrics.classification import __all__ as _classification_names
from gpunet.metrics.detection import *
from gpunet.metrics.detection import __all__ as _detection_names
from gpunet.metrics.metric import *
from gpunet.metrics.metric import __all__ as _metric_names
from gpunet.metrics.ranking import *
from gpunet.metrics.ranking import __all__ as _ranking_names
from gpunet.metrics.regression import *
from gpunet.metrics.regression import __all__ as _regression_names
from gpunet.metrics.text import *
from gpunet.metrics.text import __all__ as _text_names

__all__ = [
    *_classification_names, *_detection_names, *_metric_names, *_ranking_names, *_regression_names, *_text_names,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
