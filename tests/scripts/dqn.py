"""Deep Q-learning on a corridor, with replay memory and a target network."""

import random
from collections import deque, namedtuple

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from common import RANDOM, begin, finish, initialize, report

Transition = namedtuple("Transition", ("state", "action", "next_state", "reward"))


class DQN(nn.Module):
    def __init__(self, observations, actions):
        super(DQN, self).__init__()
        self.layer1 = nn.Linear(observations, 16)
        self.layer2 = nn.Linear(16, 16)
        self.layer3 = nn.Linear(16, actions)

    def forward(self, x):
        return self.layer3(F.relu(self.layer2(F.relu(self.layer1(x)))))


begin()
random.seed(1)
policy, target = DQN(2, 2), DQN(2, 2)
initialize(policy)
target.load_state_dict(policy.state_dict())
optimizer = optim.AdamW(policy.parameters(), lr=1e-2, amsgrad=True)
memory = deque([], maxlen=1000)
state = torch.tensor([[0.5, 0.0]])
for _ in range(120):
    with torch.no_grad():
        greedy = policy(state).max(1).indices.view(1, 1)
    action = greedy if random.random() > 0.3 else torch.tensor([[random.randrange(2)]], dtype=torch.long)
    position = state[0, 0].item() + 0.1 * (2 * action.item() - 1) + 0.01 * RANDOM.randn()
    done = not 0.0 < position < 1.0
    reward = torch.tensor([1.0 if position >= 1.0 else -0.01])
    next_state = None if done else torch.tensor([[position, position**2]])
    memory.append(Transition(state, action, next_state, reward))
    state = torch.tensor([[0.5, 0.25]]) if done else next_state
for _ in range(20):
    batch = Transition(*zip(*random.sample(list(memory), 32)))
    non_final = torch.tensor(tuple(map(lambda s: s is not None, batch.next_state)), dtype=torch.bool)
    non_final_next = torch.cat([s for s in batch.next_state if s is not None])
    values = policy(torch.cat(batch.state)).gather(1, torch.cat(batch.action))
    next_values = torch.zeros(32)
    with torch.no_grad():
        next_values[non_final] = target(non_final_next).max(1).values
    expected = (next_values * 0.9) + torch.cat(batch.reward)
    loss = nn.SmoothL1Loss()(values, expected.unsqueeze(1))
    report(loss)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(policy.parameters(), 100)
    optimizer.step()
    weights, of_policy = target.state_dict(), policy.state_dict()
    for key in of_policy:
        weights[key] = of_policy[key] * 0.05 + weights[key] * 0.95
    target.load_state_dict(weights)
finish()
