"""Denoising diffusion of points on a line segment."""

import math

import torch
from common import RANDOM, begin, finish, initialize, normal, report
from torch import nn


class SinusoidalEmbedding(nn.Module):
    def __init__(self, size, scale=1.0):
        super().__init__()
        self.size, self.scale = size, scale

    def forward(self, x):
        half = self.size // 2
        emb = torch.log(torch.Tensor([10000.0])) / (half - 1)
        emb = torch.exp(-emb * torch.arange(half))
        emb = (x * self.scale).unsqueeze(-1) * emb.unsqueeze(0)
        return torch.cat((torch.sin(emb), torch.cos(emb)), dim=-1)


class Block(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.ff, self.act = nn.Linear(size, size), nn.GELU()

    def forward(self, x):
        return x + self.act(self.ff(x))


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.time, self.x, self.y = SinusoidalEmbedding(8), SinusoidalEmbedding(8, 25.0), SinusoidalEmbedding(8, 25.0)
        self.joint = nn.Sequential(nn.Linear(24, 32), nn.GELU(), Block(32), Block(32), nn.Linear(32, 2))

    def forward(self, x, t):
        return self.joint(torch.cat((self.x(x[:, 0]), self.y(x[:, 1]), self.time(t)), dim=-1))


begin()
model = MLP()
initialize(model, 0.2)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
alphas = torch.cumprod(1.0 - torch.linspace(1e-4, 0.02, 50), dim=0)
data = torch.stack([torch.linspace(-1, 1, 64), 0.5 * torch.linspace(-1, 1, 64)], dim=1)
for _ in range(20):
    noise, t = normal(64, 2), torch.from_numpy(RANDOM.randint(0, 50, 64)).long()
    s1, s2 = alphas[t] ** 0.5, (1 - alphas[t]) ** 0.5
    noisy = s1.reshape(-1, 1) * data + s2.reshape(-1, 1) * noise
    loss = nn.functional.mse_loss(model(noisy, t), noise)
    report(loss)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
assert math.isfinite(loss.item())
finish()
