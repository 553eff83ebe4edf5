"""Two networks against each other, on points of a circle."""

import math

import torch
import torch.nn as nn
from common import RANDOM, begin, finish, initialize, normal, report
from torch.autograd import Variable


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 16), nn.LeakyReLU(0.2, inplace=True), nn.Linear(16, 2))

    def forward(self, z):
        return self.model(z)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2, inplace=True), nn.Linear(16, 1), nn.Sigmoid())

    def forward(self, x):
        return self.model(x)


begin()
adversarial_loss = torch.nn.BCELoss()
generator, discriminator = Generator(), Discriminator()
initialize(generator)
initialize(discriminator)
optimizer_G = torch.optim.Adam(generator.parameters(), lr=0.01, betas=(0.5, 0.999))
optimizer_D = torch.optim.RMSprop(discriminator.parameters(), lr=0.01)
Tensor = torch.DoubleTensor
angles = torch.tensor(RANDOM.rand(32)) * 2 * math.pi
real = torch.stack((torch.cos(angles), torch.sin(angles)), dim=1)
valid = Variable(Tensor(32, 1).fill_(1.0), requires_grad=False)
fake = Variable(Tensor(32, 1).fill_(0.0), requires_grad=False)
for _ in range(20):
    optimizer_G.zero_grad()
    made = generator(Variable(normal(32, 4)))
    g_loss = adversarial_loss(discriminator(made), valid)
    g_loss.backward()
    optimizer_G.step()
    optimizer_D.zero_grad()
    d_loss = (adversarial_loss(discriminator(real), valid) + adversarial_loss(discriminator(made.detach()), fake)) / 2
    d_loss.backward()
    optimizer_D.step()
    report(g_loss + d_loss)
finish()
