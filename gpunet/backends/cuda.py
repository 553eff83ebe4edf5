"""Flags of ``torch.backends.cuda``: products of float32 are computed in float32, whatever they allow."""

from gpunet.backend.flags import Flags
from gpunet.backend.gpus import is_available as is_built

matmul = Flags(
    "cuda.matmul", allow_tf32=False, allow_fp16_reduced_precision_reduction=True, allow_bf16_reduced_precision_reduction=True
)
