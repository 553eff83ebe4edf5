"""A character-level model of names: an embedding table, a hidden layer, and sampling."""

import torch
import torch.nn.functional as F
from common import RANDOM, begin, finish, normal, report

begin()
names = ["emma", "olivia", "ava", "isabella", "sophia", "mia", "amelia", "harper"]
letters = ["."] + sorted(set("".join(names)))
index = {letter: i for i, letter in enumerate(letters)}
context, inputs, targets = 3, [], []
for name in names:
    window = [0] * context
    for letter in name + ".":
        inputs.append(window)
        targets.append(index[letter])
        window = window[1:] + [index[letter]]
X, Y = torch.tensor(inputs), torch.tensor(targets)
C, W1, b1 = normal(len(letters), 4), 0.3 * normal(12, 32), 0.1 * normal(32)
W2, b2 = 0.1 * normal(32, len(letters)), torch.zeros(len(letters))
parameters = [C, W1, b1, W2, b2]
for p in parameters:
    p.requires_grad = True
for step in range(20):
    ix = torch.tensor(RANDOM.randint(0, X.shape[0], (16,)))
    emb = C[X[ix]]
    h = torch.tanh(emb.view(emb.shape[0], -1) @ W1 + b1)
    loss = F.cross_entropy(h @ W2 + b2, Y[ix])
    report(loss)
    for p in parameters:
        p.grad = None
    loss.backward()
    for p in parameters:
        p.data += -0.1 * p.grad
with torch.no_grad():
    window, word = [0] * context, ""
    for _ in range(10):
        h = torch.tanh(C[torch.tensor([window])].view(1, -1) @ W1 + b1)
        probabilities = F.softmax(h @ W2 + b2, dim=1)
        drawn = torch.multinomial(probabilities, num_samples=1, replacement=True).item()
        window = window[1:] + [drawn]
        word += letters[drawn]
assert len(word) == 10 and abs(probabilities.sum().item() - 1) < 1e-12
finish()
