"""A GPT learns to write like Python's own documentation, letter by letter.

    python examples/language_model.py

The text is that of ``help()``, which every Python has.  The network sees 96 letters at a time, and at the end writes some itself.
"""

from pydoc_data import topics

import gpunet
from gpunet.models import GPT
from gpunet.nn import functional as F

CONTEXT, BATCH, STEPS = 96, 12, 600


def main() -> tuple[float, str]:
    gpunet.manual_seed(0)
    text = "".join(topics.topics[name] for name in ("assert", "for", "if", "while", "try", "with", "function", "class", "return"))
    letters = sorted(set(text))
    numbers = gpunet.tensor([letters.index(letter) for letter in text])
    model = GPT(len(letters), context=CONTEXT, depth=2, num_heads=4, width=64)
    optimizer = gpunet.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = gpunet.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, STEPS)

    @gpunet.capture(backend="numpy")
    def step(tokens: gpunet.Tensor, following: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), following.flatten())
        loss.backward()
        optimizer.step()
        return loss

    losses = []
    for number in range(1, STEPS + 1):
        starts = gpunet.randint(0, len(numbers) - CONTEXT, (BATCH, 1))
        rows = numbers[starts + gpunet.arange(CONTEXT + 1)]
        losses.append(step(rows[:, :-1], rows[:, 1:]).item())
        schedule.step()
        if number % 200 == 0:
            print(f"step {number:4d}  loss {sum(losses[-20:]) / 20:.3f} nats a letter")

    model.eval()
    beginning = gpunet.tensor([[letters.index(letter) for letter in "The "]])
    written = model.generate(beginning, CONTEXT - 4, temperature=0.6, top_k=10)
    result = "".join(letters[number] for number in written[0].tolist())
    print(f"\n{result}")
    return sum(losses[-20:]) / 20, result


if __name__ == "__main__":
    main()
