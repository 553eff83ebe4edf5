"""Soft actor-critic with a squashed normal policy and two critics."""

import copy

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import begin, finish, initialize, normal, report
from torch.distributions import Normal


class Actor(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk, self.mean, self.log_std = nn.Linear(3, 16), nn.Linear(16, 2), nn.Linear(16, 2)

    def forward(self, state, noise):
        x = F.relu(self.trunk(state))
        mean, std = self.mean(x), self.log_std(x).clamp(-5, 2).exp()
        normal = Normal(mean, std)
        z = mean + std * noise
        action = torch.tanh(z)
        log_prob = normal.log_prob(z) - torch.log(1 - action.pow(2) + 1e-6)
        return action, log_prob.sum(1, keepdim=True)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.q1 = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))
        self.q2 = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, state, action):
        x = torch.cat([state, action], 1)
        return self.q1(x), self.q2(x)


begin()
actor, critic = Actor(), Critic()
initialize(actor)
initialize(critic)
target = copy.deepcopy(critic)
log_alpha = torch.zeros(1, requires_grad=True)
actor_optimizer = torch.optim.Adam(actor.parameters(), lr=3e-3)
critic_optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
alpha_optimizer = torch.optim.Adam([log_alpha], lr=3e-3)
state, action, reward, following = normal(32, 3), normal(32, 2).tanh(), normal(32, 1), normal(32, 3)
assert Normal(torch.zeros(2), torch.ones(2)).rsample((3,)).shape == (3, 2)
for _ in range(20):
    with torch.no_grad():
        next_action, next_log_prob = actor(following, normal(32, 2))
        q1, q2 = target(following, next_action)
        wanted = reward + 0.99 * (torch.min(q1, q2) - log_alpha.exp() * next_log_prob)
    q1, q2 = critic(state, action)
    critic_loss = F.mse_loss(q1, wanted) + F.mse_loss(q2, wanted)
    critic_optimizer.zero_grad()
    critic_loss.backward()
    critic_optimizer.step()
    new_action, log_prob = actor(state, normal(32, 2))
    q1, q2 = critic(state, new_action)
    actor_loss = (log_alpha.exp().detach() * log_prob - torch.min(q1, q2)).mean()
    actor_optimizer.zero_grad()
    actor_loss.backward()
    actor_optimizer.step()
    alpha_loss = -(log_alpha * (log_prob + 2).detach()).mean()
    alpha_optimizer.zero_grad()
    alpha_loss.backward()
    alpha_optimizer.step()
    for p, q in zip(critic.parameters(), target.parameters()):
        q.data.copy_(0.05 * p.data + 0.95 * q.data)
    report(critic_loss + actor_loss + alpha_loss)
finish()
