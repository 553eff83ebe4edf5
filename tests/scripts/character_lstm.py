"""A character-level LSTM on a short text: truncated backpropagation through time, packed names, and sampling with a state."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import begin, finish, initialize, report
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

begin()
text = "the cat sat on the mat; the rat ate the oat; the bat sat on the cat; " * 4
chars = sorted(set(text))
stoi = {ch: i for i, ch in enumerate(chars)}


class CharRNN(nn.Module):
    def __init__(self, vocabulary, hidden_size, num_layers=2):
        super().__init__()
        self.vocabulary, self.hidden_size, self.num_layers = vocabulary, hidden_size, num_layers
        self.lstm = nn.LSTM(vocabulary, hidden_size, num_layers, batch_first=True, dropout=0.0)
        self.decoder = nn.Linear(hidden_size, vocabulary)

    def forward(self, x, hidden):
        self.lstm.flatten_parameters()
        out, hidden = self.lstm(F.one_hot(x, self.vocabulary).to(torch.get_default_dtype()), hidden)
        return self.decoder(out), hidden

    def init_hidden(self, batch_size):
        weight = next(self.parameters())
        shape = (self.num_layers, batch_size, self.hidden_size)
        return weight.new_zeros(shape), weight.new_zeros(shape)


model = CharRNN(len(chars), 12)
initialize(model, 0.3)
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
criterion = nn.CrossEntropyLoss()
data = torch.tensor([stoi[ch] for ch in text]).view(4, -1)
hidden = model.init_hidden(4)
for start in range(0, 60, 5):
    x, y = data[:, start : start + 5], data[:, start + 1 : start + 6]
    hidden = tuple(h.detach() for h in hidden)
    optimizer.zero_grad()
    output, hidden = model(x, hidden)
    loss = criterion(output.reshape(-1, len(chars)), y.reshape(-1))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    report(loss)

words = [torch.tensor([stoi[ch] for ch in word]) for word in ("cat", "the", "on", "sat", "mat;")]
lengths = torch.tensor([len(word) for word in words])
labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0])
encoder = nn.GRU(len(chars), 6, bidirectional=True, batch_first=True)
head = nn.Linear(12, 1)
initialize(encoder)
initialize(head)
optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.5)
for _ in range(8):
    padded = F.one_hot(pad_sequence(words, batch_first=True), len(chars)).to(torch.get_default_dtype())
    packed = pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
    output, h_n = encoder(packed)
    output, found = pad_packed_sequence(output, batch_first=True)
    assert found.tolist() == lengths.tolist()
    score = head(torch.cat([h_n[0], h_n[1]], dim=1)).squeeze(1) + output.sum((1, 2)) / 100
    loss = F.binary_cross_entropy_with_logits(score, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    report(loss)

with torch.no_grad():
    hidden, x, written = model.init_hidden(1), torch.tensor([[stoi["t"]]]), "t"
    for _ in range(20):
        output, hidden = model(x, hidden)
        x = output[:, -1:].argmax(-1)
        written += chars[x.item()]
assert len(written) == 21
finish()
