"""Functions of ``torch.cuda.amp``: the older names of :mod:`gpunet.amp`."""

from gpunet.optim.cuda_amp import GradScaler, autocast, custom_bwd, custom_fwd

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
