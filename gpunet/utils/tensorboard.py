"""``torch.utils.tensorboard``."""

from gpunet.train.summary_writer import SummaryWriter

__all__ = ["SummaryWriter"]
