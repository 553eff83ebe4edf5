"""SummaryWriter: curves, images and texts for TensorBoard, by the package tensorboard."""

from __future__ import annotations

import datetime
import io
import socket
import time
from pathlib import Path
from typing import Any

import numpy

from gpunet.autograd import Tensor
from gpunet.backend import devices
from gpunet.errors import ArgumentError, MissingDependencyError
from gpunet.ops.creation import tensor
from gpunet.vision.images import to_pil
from gpunet.vision.utils import make_grid

__all__ = ["SummaryWriter"]


def _tensorboard() -> tuple[Any, Any, Any]:
    """The class that writes events, and the messages Event and Summary.

    Raises:
        MissingDependencyError: the package tensorboard is not installed.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise MissingDependencyError("SummaryWriter needs the package tensorboard: pip install tensorboard") from None
    return EventFileWriter, Event, Summary


def _array(value: Any) -> numpy.ndarray:
    return numpy.asarray(devices.to_host(value.detach().array) if isinstance(value, Tensor) else value)


class SummaryWriter:
    """Write what training does into ``log_dir``, which ``tensorboard --logdir`` shows.

    Args:
        log_dir: a folder; by default "runs/", the time and the name of the machine.
        comment: appended to the default folder.
        purge_step, max_queue, flush_secs, filename_suffix: as in TensorBoard's writer; purge_step has no effect.

    Raises:
        MissingDependencyError: the package tensorboard is not installed.
    """

    def __init__(
        self, log_dir: Any = None, comment: str = "", purge_step: int | None = None, max_queue: int = 10, flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:  # fmt: skip
        writer, self._event, self._summary = _tensorboard()
        if not log_dir:
            log_dir = Path("runs") / f"{datetime.datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}{comment}"
        self.log_dir = str(log_dir)
        self._options = (max_queue, flush_secs, filename_suffix)
        self._writers = {"": writer(self.log_dir, *self._options)}

    def _add(self, step: Any, walltime: float | None, run: str = "", **value: Any) -> None:
        if run not in self._writers:
            self._writers[run] = type(self._writers[""])(str(Path(self.log_dir, run)), *self._options)
        event = self._event(wall_time=time.time() if walltime is None else walltime)
        event.step = 0 if step is None else int(step)
        event.summary.CopyFrom(self._summary(value=[self._summary.Value(**value)]))
        self._writers[run].add_event(event)

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: Any = None, walltime: float | None = None, new_style: bool = False,
        double_precision: bool = False,
    ) -> None:  # fmt: skip
        """Add a point of the curve ``tag``.

        Raises:
            ArgumentError: the value is no number.
        """
        value = _array(scalar_value)
        if value.size != 1:
            raise ArgumentError(f"add_scalar: {tag!r} has shape {value.shape}; expected a number")
        self._add(global_step, walltime, tag=tag, simple_value=float(value.reshape(())))

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: dict[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """Add points of several curves to one picture."""
        for name, value in tag_scalar_dict.items():
            run = f"{main_tag.replace('/', '_')}_{name}"
            self._add(global_step, walltime, run, tag=main_tag, simple_value=float(_array(value).reshape(())))

    def add_histogram(
        self, tag: str, values: Any, global_step: Any = None, bins: Any = "auto", walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """Add a histogram of numbers."""
        numbers = _array(values).astype(numpy.float64).ravel()
        counts, edges = numpy.histogram(numbers, bins=30 if bins in ("tensorflow", "auto") and numbers.size > 10**6 else bins)
        histogram = {
            "min": numbers.min(), "max": numbers.max(), "num": numbers.size, "sum": numbers.sum(), "sum_squares": numbers @ numbers,
            "bucket_limit": edges[1:].tolist(), "bucket": counts.tolist(),
        }  # fmt: skip
        self._add(global_step, walltime, tag=tag, histo=histogram)

    def add_image(
        self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None, dataformats: str = "CHW"
    ) -> None:
        """Add an image: bytes, or numbers from 0 to 1; ``dataformats`` names its dimensions: "CHW", "HWC" or "HW"."""
        array = _array(img_tensor)
        if sorted(dataformats) not in (["C", "H", "W"], ["H", "W"]) or len(dataformats) != array.ndim:
            raise ArgumentError(f"add_image: dataformats={dataformats!r} of an image of shape {array.shape}; expected 'CHW'")
        if array.ndim == 3:
            array = array.transpose([dataformats.index(d) for d in "HWC"])
        pixels = array if array.dtype == numpy.uint8 else (numpy.clip(array, 0, 1) * 255).astype(numpy.uint8)
        picture, file = to_pil(pixels), io.BytesIO()
        picture.save(file, "png")
        image = {"height": picture.height, "width": picture.width, "colorspace": len(picture.getbands())}
        self._add(global_step, walltime, tag=tag, image={**image, "encoded_image_string": file.getvalue()})

    def add_images(
        self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None, dataformats: str = "NCHW"
    ) -> None:
        """Add a grid of images (images, channels, height, width)."""
        array = _array(img_tensor).transpose([dataformats.index(d) for d in "NCHW"])
        self.add_image(tag, make_grid(tensor(array)), global_step, walltime)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a text, in Markdown."""
        text = {"dtype": "DT_STRING", "string_val": [text_string.encode()], "tensor_shape": {"dim": [{"size": 1}]}}
        self._add(global_step, walltime, tag=f"{tag}/text_summary", tensor=text, metadata={"plugin_data": {"plugin_name": "text"}})

    def add_figure(self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None) -> None:
        """Add a figure of matplotlib."""
        figure.canvas.draw()
        self.add_image(tag, numpy.asarray(figure.canvas.buffer_rgba()), global_step, walltime, "HWC")
        if close:
            import matplotlib.pyplot as plt

            plt.close(figure)

    def add_hparams(self, hparam_dict: dict[str, Any], metric_dict: dict[str, Any], *args: Any, **options: Any) -> None:
        """Add hyperparameters as a text, and metrics as points of curves."""
        self.add_text("hparams", "\n".join(f"    {name} = {value}" for name, value in hparam_dict.items()))
        for name, value in metric_dict.items():
            self.add_scalar(name, value)

    def add_graph(self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True) -> None:
        """Add the text of a module: its graph is not drawn."""
        self.add_text("model", "\n".join(f"    {line}" for line in repr(model).splitlines()))

    def get_logdir(self) -> str:
        """The folder that is written to."""
        return self.log_dir

    def flush(self) -> None:
        """Write all events to the files."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Write all events to the files, and close them."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
