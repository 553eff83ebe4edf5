"""A Fourier neural operator with complex weights in two dimensions, FNet mixing, and a loss of short-time spectra."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import begin, finish, normal, report


class SpectralConv2d(nn.Module):
    def __init__(self, in_channels, out_channels, modes1, modes2):
        super().__init__()
        self.out_channels, self.modes1, self.modes2 = out_channels, modes1, modes2
        scale = 1 / (in_channels * out_channels)
        shape = (in_channels, out_channels, modes1, modes2)
        self.weights1 = nn.Parameter(scale * torch.complex(normal(*shape), normal(*shape)))
        self.weights2 = nn.Parameter(scale * torch.complex(normal(*shape), normal(*shape)))

    def compl_mul2d(self, input, weights):
        return torch.einsum("bixy,ioxy->boxy", input, weights)

    def forward(self, x):
        batchsize = x.shape[0]
        x_ft = torch.fft.rfft2(x)
        out_ft = torch.zeros(batchsize, self.out_channels, x.size(-2), x.size(-1) // 2 + 1, dtype=torch.cdouble, device=x.device)
        out_ft[:, :, : self.modes1, : self.modes2] = self.compl_mul2d(x_ft[:, :, : self.modes1, : self.modes2], self.weights1)
        out_ft[:, :, -self.modes1 :, : self.modes2] = self.compl_mul2d(x_ft[:, :, -self.modes1 :, : self.modes2], self.weights2)
        return torch.fft.irfft2(out_ft, s=(x.size(-2), x.size(-1)))


class FNetBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        return self.norm(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)


class FNO(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectral = SpectralConv2d(1, 3, 3, 2)
        self.skip = nn.Conv2d(1, 3, 1)
        self.mix = FNetBlock(8)
        self.out = nn.Conv2d(3, 1, 1)

    def forward(self, x):
        return self.out(self.mix(F.gelu(self.spectral(x) + self.skip(x)))).squeeze(1)


begin()
net = FNO()
with torch.no_grad():
    for parameter in net.parameters():
        if not parameter.is_complex():
            parameter.copy_(0.5 * normal(*parameter.shape))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
x, y = normal(4, 1, 12, 8), normal(4, 12, 8)
window = torch.hann_window(16)
for _ in range(20):
    prediction = net(x)
    mine, theirs = (torch.stft(v.flatten(1), 16, window=window, return_complex=True).abs() for v in (prediction, y))
    loss = F.mse_loss(prediction, y) + 0.1 * F.l1_loss(mine, theirs)
    report(loss)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 5.0)
    optimizer.step()
finish()
