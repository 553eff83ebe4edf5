"""Solve a differential equation with a neural network: second derivatives, and gradients of them.

    python examples/differential_equation.py

The solution of u'' = -u with u(0) = 0 and u'(0) = 1 is sin(t). The loss is the squared residual u'' + u at random points,
so its gradient needs third derivatives: ``grad(..., create_graph=True)`` makes them possible.
"""

import math

import gpunet
from gpunet import nn


def main(steps: int = 1500) -> float:
    gpunet.manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def solution(t: gpunet.Tensor) -> gpunet.Tensor:
        return t + t * t * net(t)  # satisfies u(0) = 0 and u'(0) = 1 for any net

    optimizer = gpunet.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(1, steps + 1):
        t = (gpunet.rand(64, 1) * math.pi).requires_grad_()
        u = solution(t)
        (slope,) = gpunet.grad(u.sum(), t, create_graph=True)
        (curvature,) = gpunet.grad(slope.sum(), t, create_graph=True)
        loss = ((curvature + u) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (steps // 5) == 0:
            print(f"step {step:5d}  residual {loss.item():.2e}")

    with gpunet.no_grad():
        t = gpunet.linspace(0.0, math.pi, 101).reshape(-1, 1)
        error = (solution(t) - t.sin()).abs().max().item()
    print(f"largest error against sin(t) on [0, pi]: {error:.1e}")
    return error


if __name__ == "__main__":
    main()
