"""A Kolmogorov-Arnold network: learnable B-splines on the edges."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import begin, finish, initialize, normal, report


class KANLinear(torch.nn.Module):
    def __init__(self, in_features, out_features, grid_size=5, order=3):
        super().__init__()
        self.order, self.in_features, self.out_features = order, in_features, out_features
        step = 2.0 / grid_size
        grid = (torch.arange(-order, grid_size + order + 1) * step - 1.0).expand(in_features, -1).contiguous()
        self.register_buffer("grid", grid)
        self.base_weight = nn.Parameter(torch.Tensor(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.Tensor(out_features, in_features, grid_size + order))

    def b_splines(self, x):
        x, grid = x.unsqueeze(-1), self.grid
        bases = ((x >= grid[:, :-1]) & (x < grid[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (x - grid[:, : -(k + 1)]) / (grid[:, k:-1] - grid[:, : -(k + 1)]) * bases[:, :, :-1]
            right = (grid[:, k + 1 :] - x) / (grid[:, k + 1 :] - grid[:, 1:-k]) * bases[:, :, 1:]
            bases = left + right
        return bases.contiguous()

    def forward(self, x):
        base = F.linear(F.silu(x), self.base_weight)
        spline = F.linear(self.b_splines(x).view(x.size(0), -1), self.spline_weight.view(self.out_features, -1))
        return base + spline


begin()
net = nn.Sequential(KANLinear(2, 5), KANLinear(5, 1))
initialize(net, 0.3)
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
x = normal(60, 2).clamp(-1, 1)
y = torch.exp(torch.sin(torch.pi * x[:, [0]]) + x[:, [1]] ** 2)
for _ in range(20):
    loss = F.mse_loss(net(x), y)
    report(loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
finish()
