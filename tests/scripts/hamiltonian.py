"""A Hamiltonian network: the dynamics are the symplectic gradient of a learned energy."""

import torch
import torch.nn as nn
from common import begin, finish, initialize, normal, report


class HNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(2, 24), nn.Linear(24, 24)
        self.linear3 = nn.Linear(24, 1, bias=False)
        for layer in (self.linear1, self.linear2, self.linear3):
            nn.init.orthogonal_(layer.weight)
        self.M = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])

    def forward(self, x):
        return self.linear3(torch.tanh(self.linear2(torch.tanh(self.linear1(x)))))

    def time_derivative(self, x):
        energy = self.forward(x)
        gradient = torch.autograd.grad(energy.sum(), x, create_graph=True)[0]
        return gradient @ self.M.t()


begin()
model = HNN()
initialize(model)
x = normal(40, 2).requires_grad_()
dx = torch.stack([x[:, 1].detach(), -x[:, 0].detach()], dim=1)
optimizer = torch.optim.Adam(model.parameters(), 1e-2, weight_decay=1e-4)
for _ in range(20):
    loss = (dx - model.time_derivative(x)).pow(2).mean()
    report(loss)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
finish()
