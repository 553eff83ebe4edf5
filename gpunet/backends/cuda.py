"""Flags of ``torch.backends.cuda``: whether products of float32 may be TF32 (see ``set_float32_matmul_precision``); sums of halves
are float32, whatever the others allow."""

from gpunet.backend.flags import MatmulFlags
from gpunet.backend.gpus import is_available as is_built

matmul = MatmulFlags("cuda.matmul", allow_fp16_reduced_precision_reduction=True, allow_bf16_reduced_precision_reduction=True)
