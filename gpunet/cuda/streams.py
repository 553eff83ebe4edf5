"""Classes of ``torch.cuda.streams``."""

from gpunet.backend.streams import Event, ExternalStream, Stream

__all__ = ["Event", "ExternalStream", "Stream"]
