"""Diagnosis: what a training does, in words and pictures."""

from gpunet.diagnose.anomaly import *
from gpunet.diagnose.anomaly import __all__ as _anomaly_names
from gpunet.diagnose.gradient_flow import *
from gpunet.diagnose.gradient_flow import __all__ as _gradient_flow_names
from gpunet.diagnose.graph import *
from gpunet.diagnose.graph import __all__ as _graph_names
from gpunet.diagnose.profiler import *
from gpunet.diagnose.profiler import __all__ as _profiler_names
from gpunet.diagnose.summary import *
from gpunet.diagnose.summary import __all__ as _summary_names
from gpunet.diagnose.verdict import *
from gpunet.diagnose.verdict import __all__ as _verdict_names

__all__ = [
    *_anomaly_names, *_gradient_flow_names, *_graph_names, *_profiler_names, *_summary_names, *_verdict_names,
]  # fmt: skip


def __dir__() -> list[str]:
    return sorted(__all__)
