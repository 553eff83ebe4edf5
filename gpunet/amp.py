"""Functions of ``torch.amp``: mixed precision."""

from gpunet.autograd.autocast import autocast, custom_bwd, custom_fwd, is_autocast_available
from gpunet.optim.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
