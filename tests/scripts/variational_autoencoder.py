"""A variational autoencoder on flattened images."""

import torch
from common import RANDOM, begin, finish, initialize, normal, report
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class VAE(nn.Module):
    def __init__(self):
        super(VAE, self).__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.fc3, self.fc4 = nn.Linear(4, 32), nn.Linear(32, 64)

    def encode(self, x):
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 64))
        z = mu + normal(*mu.shape) * torch.exp(0.5 * logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


begin()
model = VAE()
initialize(model, 0.1)
optimizer = optim.Adam(model.parameters(), lr=1e-2)
images = torch.tensor(RANDOM.rand(80, 8, 8))
loader = DataLoader(TensorDataset(images), batch_size=20, shuffle=False)
for epoch in range(5):
    for (data,) in loader:
        recon, mu, logvar = model(data)
        BCE = F.binary_cross_entropy(recon, data.view(-1, 64), reduction="sum")
        KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        loss = (BCE + KLD) / len(data)
        report(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
finish()
