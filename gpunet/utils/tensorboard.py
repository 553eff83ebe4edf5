"""``torch.utils.tensorboard``."""

from gpunet.interop.tensorboard_writer import SummaryWriter

__all__ = ["SummaryWriter"]
