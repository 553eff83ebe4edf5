"""Proximal policy optimization with a categorical policy."""

import torch
import torch.nn as nn
from common import RANDOM, begin, finish, initialize, normal, report
from torch.distributions import Categorical


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 4), nn.Softmax(dim=-1))
        self.critic = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))

    def evaluate(self, state, action):
        dist = Categorical(self.actor(state))
        return dist.log_prob(action), self.critic(state), dist.entropy()


begin()
policy, old = ActorCritic(), ActorCritic()
initialize(policy)
old.load_state_dict(policy.state_dict())
optimizer = torch.optim.Adam(
    [{"params": policy.actor.parameters(), "lr": 3e-3}, {"params": policy.critic.parameters(), "lr": 1e-2}]
)
states, actions, rewards = normal(64, 3), torch.tensor(RANDOM.randint(0, 4, 64)), normal(64)
with torch.no_grad():
    drawn = Categorical(old.actor(states)).sample()
assert drawn.shape == (64,)
returns, total = [], 0.0
for reward in reversed(rewards.tolist()):
    total = reward + 0.95 * total
    returns.insert(0, total)
returns = torch.tensor(returns)
returns = (returns - returns.mean()) / (returns.std() + 1e-7)
old_log_probs, old_values, _ = (t.detach() for t in old.evaluate(states, actions))
for _ in range(20):
    log_probs, values, entropy = policy.evaluate(states, actions)
    advantages = returns - values.detach().squeeze()
    ratios = torch.exp(log_probs - old_log_probs)
    surrogate = torch.min(ratios * advantages, torch.clamp(ratios, 0.8, 1.2) * advantages)
    loss = -surrogate + 0.5 * nn.MSELoss()(values.squeeze(), returns) - 0.01 * entropy
    report(loss.mean())
    optimizer.zero_grad()
    loss.mean().backward()
    optimizer.step()
finish()
