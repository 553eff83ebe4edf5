"""Vanishing gradients: the size of the gradient in each layer, by activation and initialisation.

    python examples/vanishing_gradients.py

Backward multiplies the gradient by w * act'(z) in every layer. The slope of the sigmoid is at most 1/4, so the gradient
shrinks from layer to layer. ReLU, with slope 1, and He initialisation (variance 2 / fan_in) keep its size.
"""

import gpunet
from gpunet import nn

DEPTH, WIDTH, BATCH = 12, 64, 256


def gradient_norms(activation: type[nn.Module], initialise) -> list[float]:
    """The norm of dC/dW in each layer, from first to last, before the first training step."""
    gpunet.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(WIDTH, WIDTH), activation()]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 1))
    for layer in model:
        if isinstance(layer, nn.Linear):
            initialise(layer.weight)
            nn.init.zeros_(layer.bias)
    x = gpunet.randn(BATCH, WIDTH)
    nn.functional.mse_loss(model(x), gpunet.randn(BATCH, 1)).backward()
    return [layer.weight.grad.norm().item() for layer in model if isinstance(layer, nn.Linear)]


def main() -> None:
    nets = {
        "sigmoid, small weights": (nn.Sigmoid, lambda w: nn.init.normal_(w, std=0.05)),
        "sigmoid, Xavier": (nn.Sigmoid, nn.init.xavier_normal_),
        "tanh, Xavier": (nn.Tanh, nn.init.xavier_normal_),
        "relu, He": (nn.ReLU, lambda w: nn.init.kaiming_normal_(w, nonlinearity="relu")),
        "relu, weights 3 x He: explodes": (nn.ReLU, lambda w: nn.init.normal_(w, std=3 * (2 / WIDTH) ** 0.5)),
    }
    print(f"{'norm of dC/dW in layer':32}" + "".join(f"{n:>10}" for n in (1, 4, 7, 10, 13)) + f"{'first/last':>12}")
    for name, (activation, initialise) in nets.items():
        norms = gradient_norms(activation, initialise)
        print(f"{name:32}" + "".join(f"{norms[i]:10.1e}" for i in (0, 3, 6, 9, 12)) + f"{norms[0] / norms[-1]:12.1e}")


if __name__ == "__main__":
    main()
