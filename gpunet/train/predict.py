"""Predictions of a trained network for the rows of a table."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from gpunet.autograd import Tensor, no_grad
from gpunet.data.columns import Column
from gpunet.data.split import Standardisation
from gpunet.data.table import Table, encode
from gpunet.data.tabular import open_table
from gpunet.errors import CheckpointError
from gpunet.ops.creation import tensor
from gpunet.ops.join import cat
from gpunet.ops.softmax import softmax
from gpunet.train.run_folder import load_run

__all__ = ["Predictions", "predict"]

_BATCH = 8192  # rows at once


@dataclass(frozen=True)
class Predictions:
    """The rows of a table and what a network predicts for each."""

    table: Table
    target_name: str
    values: numpy.ndarray  # (n,): class names, or numbers in the unit of the targets
    class_names: tuple[str, ...]  # empty for regression
    probabilities: numpy.ndarray | None  # (n, classes), None for regression

    def as_csv(self, with_probabilities: bool = False) -> str:
        """The columns of the table, the prediction and, if wanted, the probability of each class, as CSV with a header."""
        names = [*self.table.names, f"predicted {self.target_name}"]
        columns = [self.values.tolist()]
        if with_probabilities and self.probabilities is not None:
            names += [f"probability of {name}" for name in self.class_names]
            columns += [[f"{p:.6g}" for p in column] for column in self.probabilities.T]
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([*row, *added] for row, added in zip(self.table.rows(), zip(*columns)))
        return text.getvalue()


def probabilities(outputs: Tensor, loss: str) -> Tensor:
    """The probability of each class, of the outputs of a network that was trained with a loss of classes."""
    if loss == "cross_entropy":
        return softmax(outputs, 1)
    last = outputs.sigmoid()  # one output, of two classes
    return cat([1 - last, last], 1)


def predict(run: str | os.PathLike[str], data: Any, device: Any = "cpu") -> Predictions:
    """Predict the target of each row of a table.

    Args:
        run: a folder that ``gpunet train`` has written.
        data: a CSV file, with a header if the file of the training had one, a Parquet file, or a data frame.  It has the columns
            that the network was trained on: in any order with a header, else at their numbers.  It may have others, and may lack
            the target.
        device: of the network.

    Raises:
        CheckpointError: the run folder is damaged.
        DataError: the table cannot be read, lacks a column, or has a value of another kind.
        MissingDependencyError: Parquet files and data frames need pyarrow.
    """
    model, config = load_run(run, device)
    try:
        columns = [Column.from_json(column) for column in config["columns"]]
        values, target_name, class_names = config["standardisation"], config["target"], tuple(config["classes"])
        loss = config["loss"]
        standardisation = Standardisation(numpy.array(values["mean"]), numpy.array(values["scale"]), values["target_mean"],
                                          values["target_scale"])  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{Path(run) / 'config.json'} was not written by this version of gpunet train ({error!r})") from None
    table = open_table(data, [column.name for column in columns], config.get("has_header"))
    features = standardisation.features(encode(table, columns))
    with no_grad():
        parts = [model(tensor(features[i : i + _BATCH], device=device)) for i in range(0, len(features), _BATCH)]
        outputs = cat(parts)
        if class_names:
            outputs = probabilities(outputs, loss)
    found = outputs.cpu().numpy()
    if not class_names:
        numbers = found[:, 0].astype(float) * standardisation.target_scale + standardisation.target_mean
        return Predictions(table, target_name, numbers, (), None)
    return Predictions(table, target_name, numpy.array(class_names)[found.argmax(1)], class_names, found)
