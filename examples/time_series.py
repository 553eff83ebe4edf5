"""An LSTM predicts an electroencephalogram, which matplotlib ships: the next value from the last ones.

    python examples/time_series.py

Each of the last 32 values enters a layer of LSTM; a linear layer reads the next value from its state.  The last quarter of the
series is held out.  The error is compared with that of repeating the last value.
"""

import sys

import numpy
from matplotlib.cbook import get_sample_data
from matplotlib.figure import Figure

import gpunet
from gpunet import nn

WINDOW, BATCH, STEPS = 32, 64, 400


class Predictor(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, width, batch_first=True)
        self.last = nn.Linear(width, 1)

    def forward(self, x: gpunet.Tensor) -> gpunet.Tensor:
        """Windows (n, WINDOW, 1) -> the values behind them (n, 1): the last one and a predicted change."""
        return x[:, -1] + self.last(self.lstm(x)[0][:, -1])


def main(path: str = "time_series.png") -> tuple[float, float]:
    gpunet.manual_seed(0)
    with get_sample_data("eeg.dat") as file:
        values = numpy.fromfile(file, float).reshape(-1, 4)[:, 0].astype("float32")
    values = gpunet.tensor((values - values.mean()) / values.std())
    windows = gpunet.stack([values[n : n + WINDOW] for n in range(len(values) - WINDOW)]).unsqueeze(-1)
    following = values[WINDOW:].unsqueeze(-1)
    held_out = len(windows) // 4
    model = Predictor()
    optimizer = gpunet.optim.Adam(model.parameters(), lr=5e-3)

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for number in range(1, STEPS + 1):
        rows = gpunet.randint(0, len(windows) - held_out, (BATCH,))
        loss = step(windows[rows], following[rows])
        if number % 100 == 0:
            print(f"step {number:4d}  loss {loss.item():.4f}")

    with gpunet.no_grad():
        found = model(windows[-held_out:])
    error = ((found - following[-held_out:]) ** 2).mean().item()
    repeated = ((windows[-held_out:, -1] - following[-held_out:]) ** 2).mean().item()
    print(f"squared error on the held-out quarter {error:.4f}; of repeating the last value {repeated:.4f}")

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(following[-held_out:, 0].numpy(), label="measured")
    axes.plot(found[:, 0].numpy(), label="predicted from the values before")
    axes.legend()
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return error, repeated


if __name__ == "__main__":
    main(*sys.argv[1:])
