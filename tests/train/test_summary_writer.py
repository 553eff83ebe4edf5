"""What SummaryWriter writes, as TensorBoard reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpunet
from gpunet.errors import ArgumentError
from gpunet.utils.tensorboard import SummaryWriter

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_events(tmp_path: Path) -> None:
    with SummaryWriter(tmp_path) as writer:
        for step in range(3):
            writer.add_scalar("loss", gpunet.tensor(1.5 + step), step)
        writer.add_scalars("both", {"a": 1.0, "b": 2.0}, 1)
        writer.add_image("image", gpunet.rand(3, 4, 5), 1)
        writer.add_images("images", gpunet.rand(4, 1, 4, 5), 1)
        writer.add_histogram("weights", gpunet.arange(10), 2)
        writer.add_text("note", "text")
        writer.add_graph(gpunet.nn.Linear(2, 2))
        writer.add_hparams({"lr": 0.1}, {"final": 3.0})
        with pytest.raises(ArgumentError, match=r"add_scalar: 'x' has shape \(2,\)"):
            writer.add_scalar("x", gpunet.ones(2))
        with pytest.raises(ArgumentError, match=r"dataformats='CHW' of an image of shape \(2,\)"):
            writer.add_image("x", gpunet.ones(2))
    found = accumulator.EventAccumulator(str(tmp_path))
    found.Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(0, 1.5), (1, 2.5), (2, 3.5)]
    assert found.Scalars("final")[0].value == 3.0
    [image] = found.Images("image")
    assert (image.width, image.height) == (5, 4)
    assert found.Histograms("weights")[0].histogram_value.num == 10
    assert b"text" in found.Tensors("note/text_summary")[0].tensor_proto.string_val
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["both_a", "both_b"]
