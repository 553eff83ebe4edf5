"""A physics-informed network for u'' = -u, trained with LBFGS."""

import torch
import torch.nn as nn
from common import begin, finish, initialize, report


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 1))

    def forward(self, x):
        return self.net(x)


begin()
net = Network()
initialize(net)
x = torch.linspace(0, 2, 16).view(-1, 1).requires_grad_(True)
start = torch.zeros(1, 1, requires_grad=True)
optimizer = torch.optim.LBFGS(net.parameters(), lr=1.0, max_iter=3, history_size=10, line_search_fn="strong_wolfe")


def derivative(y, x):
    return torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), create_graph=True)[0]


def closure():
    optimizer.zero_grad()
    u = net(x)
    residual = derivative(derivative(u, x), x) + u
    at_start = net(start)
    loss = residual.pow(2).mean() + at_start.pow(2).mean() + (derivative(at_start, start) - 1).pow(2).mean()
    loss.backward()
    return loss


for _ in range(20):
    report(optimizer.step(closure))
finish()
