"""Vanishing gradients of deep convolutional networks: a picture of the gradient in each layer, with and without the cure.

    python examples/residual_gradients.py

Three networks of 32 layers read the digits of scikit-learn: a plain one, one with batch norm, and one with batch norm and shortcuts
(He et al. 2016).  In the plain one each layer shrinks the gradient, so the first layers do not learn, and the loss stays at log 10.
With batch norm alone, each layer makes the gradient larger; shortcuts keep its size.
"""

import sys

from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import gpunet
from gpunet import nn
from gpunet.nn import functional as F
from gpunet.vision.models import CifarResNet

DEPTH, WIDTH, BATCH, STEPS = 32, 4, 32, 30
NETWORKS = {
    "plain": {"norm_layer": lambda channels: nn.Identity(), "shortcuts": False},
    "batch norm": {"shortcuts": False},
    "batch norm and shortcuts": {},
}


def gradient_norms(model: nn.Module, x: gpunet.Tensor, y: gpunet.Tensor) -> list[float]:
    """The norm of the gradient that backward brings to each convolution's result, from the first layer to the last."""
    results = []

    def keep(layer: nn.Module, inputs: tuple, result: gpunet.Tensor) -> None:
        result.retain_grad()
        results.append(result)

    hooks = [layer.register_forward_hook(keep) for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    F.cross_entropy(model(x), y).backward()
    for hook in hooks:
        hook.remove()
    return [result.grad.norm().item() for result in results]


def train(options: dict, images: gpunet.Tensor, labels: gpunet.Tensor) -> tuple[list[float], list[float]]:
    """The gradient of each layer before the first step, and the losses."""
    gpunet.manual_seed(0)
    model = CifarResNet(DEPTH, in_channels=1, width=WIDTH, **options)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()  # the default of PyTorch's layers
    optimizer = gpunet.optim.Adam(model.parameters(), lr=3e-3)

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    norms = gradient_norms(model, images[:BATCH], labels[:BATCH])
    batches = (gpunet.randperm(len(images))[:BATCH] for _ in range(STEPS))
    return norms, [step(images[rows], labels[rows]).item() for rows in batches]


def main(path: str = "residual_gradients.png") -> dict[str, tuple[list[float], list[float]]]:
    data = load_digits()
    images = gpunet.tensor(data.images.astype("float32") / 16.0 - 0.3).unsqueeze(1)
    labels = gpunet.tensor(data.target.astype("int64"))
    found = {name: train(options, images, labels) for name, options in NETWORKS.items()}

    figure = Figure(figsize=(9, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, (norms, losses) in found.items():
        left.semilogy(range(1, len(norms) + 1), norms, label=name)
        right.plot(losses, label=name)
        print(f"{name:26} gradient of the first layer {norms[0]:.1e}, of the last {norms[-1]:.1e}; loss {losses[-1]:.3f}")
    left.set(xlabel="layer", title="norm of the gradient before training")
    right.set(xlabel="step", title="loss")
    right.legend()
    figure.savefig(path, dpi=80)
    print(f"picture: {path}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
