"""Models in files, for the exports: a run folder of ``gpunet train``, or an ONNX file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy

from gpunet.autograd import Tensor, no_grad
from gpunet.backend.dtypes import is_floating
from gpunet.data.columns import Column
from gpunet.errors import ArgumentError, CheckpointError, OutOfRangeError
from gpunet.interop.onnx.load import load
from gpunet.interop.tracing.graph import Spec
from gpunet.nn import Module
from gpunet.ops.compare import isnan
from gpunet.ops.creation import tensor
from gpunet.ops.elementwise import where
from gpunet.train.predict import probabilities
from gpunet.train.run_folder import load_run


class Predictor(Module):
    """The network of a run folder from encoded features to what ``gpunet predict`` says.

    It takes the features as numbers, not standardised, NaN where one is missing; it returns the probabilities of the classes, or
    targets in their unit (n, 1).

    Args:
        run: a folder that ``gpunet train`` has written.

    Raises:
        CheckpointError: the run folder is damaged.
    """

    def __init__(self, run: str | os.PathLike[str]) -> None:
        super().__init__()
        self.network, config = load_run(run)
        try:
            values = config["standardisation"]
            for name in ("mean", "scale"):
                self.register_buffer(name, tensor(numpy.array(values[name], numpy.float32)))
            self.target_mean, self.target_scale = float(values["target_mean"]), float(values["target_scale"])
            self.num_features, self.classes, self.loss = len(values["mean"]), tuple(config["classes"]), config["loss"]
            columns = [Column.from_json(column) for column in config.get("columns", ())]
        except (KeyError, TypeError, ValueError) as error:
            where = Path(run) / "config.json"
            raise CheckpointError(f"{where} was not written by this version of gpunet train ({error!r})") from None

        self.feature_names = tuple(name for column in columns for name in column.names)

    def describe(self) -> str:
        """What the numbers of an input and of an output are, as two lines; of a data set without columns, how many they are."""
        known = self.feature_names if len(self.feature_names) == self.num_features else (f"{self.num_features} features",)
        outputs = ", ".join(map(str, self.classes))
        return f"input: {', '.join(known)}\noutput: " + (f"probability of {outputs}" if self.classes else "the target")

    def forward(self, features: Tensor) -> Tensor:
        shifted = (features - self.mean) / self.scale
        outputs: Any = self.network(where(isnan(features), 0.0, shifted))
        if not self.classes:
            return outputs[:, :1] * self.target_scale + self.target_mean
        return probabilities(outputs, self.loss)


def model_in(path: str | os.PathLike[str], batch: int = 1) -> tuple[Module, tuple[Tensor, ...]]:
    """The model in a run folder or an ONNX file, and arguments of a call with ``batch`` samples.

    The arguments are random, so that an export that computes something else is found: floating numbers are normal, for a run folder
    with the mean and scale of the features; integers, such as tokens, are in the range that the model takes.

    Raises:
        ArgumentError: there is neither, or an input has a shape that is not fixed in another dimension than the first, or a type
            that gpunet does not have.
        CheckpointError, FormatError: it is damaged.
    """
    if batch < 1:
        raise ArgumentError(f"export: a batch of {batch}; expected 1 or more")
    place, random = Path(path), numpy.random.default_rng(0)
    if place.is_dir():
        predictor = Predictor(place)
        features = random.normal(size=(batch, predictor.num_features)).astype(numpy.float32)
        return predictor, (tensor(features) * predictor.scale + predictor.mean,)
    if place.suffix != ".onnx":
        raise ArgumentError(f"export: {str(path)!r} is no folder of gpunet train, and no .onnx file")
    model = load(place)
    specs: list[Spec] = []
    for name, shape, dtype in zip(model.input_names, model.input_shapes, model.input_dtypes):
        sizes = tuple(batch if dim == 0 and not isinstance(size, int) else size for dim, size in enumerate(shape))
        if not all(isinstance(size, int) for size in sizes):
            raise ArgumentError(f"export: the input {name!r} has shape {shape}; expected fixed sizes but the first")
        if dtype is None:
            raise ArgumentError(f"export: the input {name!r} has a type that gpunet does not have; expected numbers or booleans")
        specs.append(Spec(sizes, dtype))
    return model, _arguments(model, specs, random)


def _arguments(model: Module, specs: list[Spec], random: numpy.random.Generator) -> tuple[Tensor, ...]:
    """Random inputs, with integers that the model takes as indices."""
    for limit in (100, 10, 2, 1):
        arguments = tuple(
            tensor((random.normal(size=shape) if is_floating(dtype) else random.integers(0, limit, shape)).astype(dtype))
            for shape, dtype in specs
        )
        try:
            with no_grad():
                model(*arguments)
        except OutOfRangeError:
            if limit > 1:
                continue
            raise
        break
    return arguments
