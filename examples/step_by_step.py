"""Training without an optimizer object: forward, loss, backward, and gradient descent as a separate step.

    python examples/step_by_step.py

Then the launches of the step are recorded on a tape and replayed. ``gpunet.capture`` is built on this.
"""

import gpunet
from gpunet.launch.tape import Tape, record


def main() -> float:
    gpunet.manual_seed(0)
    x = gpunet.rand(200, 1) * 4.0 - 2.0
    y = x * x  # the function to learn

    w1, b1 = gpunet.randn(16, 1, requires_grad=True), gpunet.zeros(16, requires_grad=True)
    w2, b2 = (gpunet.randn(1, 16) * 0.25).requires_grad_(), gpunet.zeros(1, requires_grad=True)
    parameters = [w1, b1, w2, b2]

    def step() -> gpunet.Tensor:
        hidden = (x @ w1.T + b1).tanh()  # forward
        prediction = hidden @ w2.T + b2
        loss = ((prediction - y) ** 2).mean()  # the error as one number
        for p in parameters:
            p.grad = None
        loss.backward()  # the chain rule, from the loss back to every parameter
        with gpunet.no_grad():  # gradient descent is not part of backward
            for p in parameters:
                p -= 0.1 * p.grad
        return loss

    for number in range(301):
        loss = step()
        if number % 100 == 0:
            print(f"step {number:4d}  loss {loss.item():.4f}")

    tape = Tape()
    with record(tape):  # records the launches of one step and their buffers
        loss = step()
    for _ in range(1000):
        tape.replay()  # runs the launches again, without the Python code
    print(f"after 1000 replays of {len(tape)} launches: loss {loss.item():.4f}")
    return loss.item()


if __name__ == "__main__":
    main()
