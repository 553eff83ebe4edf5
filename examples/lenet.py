"""A small convolutional network reads digits: a LeNet (LeCun et al. 1998) for images of 8 x 8 pixels.

    python examples/lenet.py

The data are the 1797 digits of scikit-learn; for training, each is also moved by one pixel in four directions. A strided
convolution halves the images, as pooling would. Each convolution computes its bias and its activation in one launch, and
``gpunet.capture`` replays the whole training step.
"""

import gpunet
from gpunet import nn

EPOCHS, BATCH = 12, 64
SHIFTS = ((0, 0, 0, 0), (1, -1, 0, 0), (-1, 1, 0, 0), (0, 0, 1, -1), (0, 0, -1, 1))  # widths of padding


def digits() -> tuple[gpunet.Tensor, gpunet.Tensor, gpunet.Tensor, gpunet.Tensor]:
    """Images (n, 1, 8, 8) and labels (n,): a fifth is held out, the rest is for training."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = gpunet.tensor(data.images.astype("float32") / 16.0).unsqueeze(1)
    labels = gpunet.tensor(data.target.astype("int64"))
    order = gpunet.randperm(len(images))
    held_out = len(images) // 5
    test, train = order[:held_out], order[held_out:]
    moved = gpunet.cat([nn.functional.pad(images[train], shift) for shift in SHIFTS])
    return moved, labels[train].repeat(len(SHIFTS)), images[test], labels[test]


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),  # 8 x 8 -> 4 x 4
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def accuracy(model: nn.Module, images: gpunet.Tensor, labels: gpunet.Tensor) -> float:
    model.eval()
    with gpunet.no_grad():
        found = model(images).argmax(1)
    return (found == labels).float().mean().item()


def main() -> float:
    gpunet.manual_seed(0)
    images, labels, test_images, test_labels = digits()
    model = network()
    optimizer = gpunet.optim.Adam(model.parameters(), lr=2e-3)
    schedule = gpunet.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)

    @gpunet.capture(backend="numpy")
    def step(x: gpunet.Tensor, y: gpunet.Tensor) -> gpunet.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    epoch = step.epoch(images, labels, batch_size=BATCH)
    for number in range(EPOCHS):
        model.train()
        loss = epoch()
        schedule.step()
        if number % 4 == 3:
            found = accuracy(model, test_images, test_labels)
            print(f"epoch {number + 1:3d}  loss {loss.item():.4f}  held-out accuracy {found:.4f}")
    return accuracy(model, test_images, test_labels)


if __name__ == "__main__":
    main()
