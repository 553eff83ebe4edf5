"""Real-NVP coupling layers on two moons."""

import math

import numpy
import torch
import torch.nn as nn
from common import RANDOM, begin, finish, initialize, report
from torch.distributions import MultivariateNormal


class Flow(nn.Module):
    def __init__(self, masks):
        super().__init__()
        self.register_buffer("mask", masks)
        make = lambda last: nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(), nn.Linear(16, 2), *last)  # noqa: E731
        self.s = torch.nn.ModuleList([make([nn.Tanh()]) for _ in range(len(masks))])
        self.t = torch.nn.ModuleList([make([]) for _ in range(len(masks))])
        self.prior = MultivariateNormal(torch.zeros(2), torch.eye(2))

    def log_prob(self, x):
        log_det, z = x.new_zeros(x.shape[0]), x
        for i in reversed(range(len(self.t))):
            kept = self.mask[i] * z
            s, t = self.s[i](kept) * (1 - self.mask[i]), self.t[i](kept) * (1 - self.mask[i])
            z = (1 - self.mask[i]) * (z - t) * torch.exp(-s) + kept
            log_det -= s.sum(dim=1)
        return self.prior.log_prob(z) + log_det


begin()
angle = RANDOM.rand(128) * math.pi
outer = numpy.arange(128) % 2 == 0
x, y = numpy.cos(angle), numpy.sin(angle)
points = numpy.stack([numpy.where(outer, x, 1 - x), numpy.where(outer, y, 0.5 - y)], 1)
data = torch.from_numpy(points + 0.05 * RANDOM.randn(128, 2))
flow = Flow(torch.tensor([[0.0, 1.0], [1.0, 0.0]] * 2))
initialize(flow, 0.3)
optimizer = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=1e-2)
for _ in range(20):
    loss = -flow.log_prob(data).mean()
    report(loss)
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()
finish()
