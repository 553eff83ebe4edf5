"""The training loop."""

from __future__ import annotations

import gpunet
from gpunet.data import DataLoader, TensorDataset
from gpunet.train import fit


def test_on_batch_stops_training() -> None:
    model = gpunet.nn.Linear(2, 1)
    data = DataLoader(TensorDataset(gpunet.randn(10, 2), gpunet.randn(10, 1)), batch_size=2)
    optimizer = gpunet.optim.SGD(model.parameters(), lr=0.1)
    steps = []
    results = fit(
        model, gpunet.nn.MSELoss(), optimizer, data, epochs=9, task="regression",
        on_batch=lambda: steps.append(1) or len(steps) == 7,
    )  # fmt: skip
    assert [r.number for r in results] == [1]
    assert len(steps) == 7
