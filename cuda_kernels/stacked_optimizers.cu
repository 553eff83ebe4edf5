// Optimizers of many nets: each net has its own hyperparameters, and a net with active[s] == 0 is left as it is.
//
//   stacked_sgd_step       p -= lr v, v = momentum v + g
//   stacked_adam_factors   the numbers of a step of Adam for each net, in float64, and the powers of the betas
//   stacked_adam_step      one step of Adam with these numbers
//
// A parameter p (nets, count), its states and its gradient lie net by net; numbers (nets, ...) are in device memory, so that a
// CUDA graph uses their current values.  The formulas are those of the NumPy twins in gpunet/optim/stacked.py.
//
// Versions: 1. an element for each thread, a row of blocks for each net (this one).

#include "common/half.cuh"

template <class T, bool MOMENTUM, bool NESTEROV>
__global__ void __launch_bounds__(256) stacked_sgd_step(
    T* p, T* velocity, const T* g, const double* numbers, const long long* active, int count) {
  using A = Accumulator<T>;
  __shared__ A of_net[3];
  const int net = blockIdx.y, element = blockIdx.x * 256 + threadIdx.x;
  if (active != nullptr && active[net] == 0) return;
  if (threadIdx.x < 3) of_net[threadIdx.x] = A(numbers[3 * net + threadIdx.x]);
  __syncthreads();
  if (element >= count) return;
  const A rate = of_net[0], momentum = of_net[1], decay = of_net[2];
  const long long i = static_cast<long long>(net) * count + element;
  A change = A(g[i]) + decay * A(p[i]);
  if (MOMENTUM) {
    const A moved = momentum * A(velocity[i]) + change;
    velocity[i] = T(moved);
    change = NESTEROV ? change + momentum * moved : moved;
  }
  p[i] = T(A(p[i]) - rate * change);
}

template <class T>
__global__ void __launch_bounds__(256) stacked_adam_factors(
    double* factors, double* powers, const double* numbers, const long long* active, int nets, bool decoupled) {
  const int net = blockIdx.x * 256 + threadIdx.x;
  if (net >= nets || (active != nullptr && active[net] == 0)) return;
  const double *h = numbers + 5 * net, rate = h[0], decay = h[4];
  double* f = factors + 9 * net;
  const double power1 = powers[2 * net] * h[1], power2 = powers[2 * net + 1] * h[2];
  powers[2 * net] = power1;
  powers[2 * net + 1] = power2;
  f[0] = decoupled ? 1.0 - rate * decay : 1.0;
  f[1] = decoupled ? 0.0 : decay;
  f[2] = h[1];
  f[3] = 1.0 - h[1];
  f[4] = h[2];
  f[5] = 1.0 - h[2];
  f[6] = rate / (1.0 - power1);
  f[7] = 1.0 / sqrt(1.0 - power2);
  f[8] = h[3];
}

template <class T>
__global__ void __launch_bounds__(256) stacked_adam_step(
    T* p, T* average, T* square, const T* g, const double* factors, const long long* active, int count) {
  using A = Accumulator<T>;
  __shared__ A f[9];
  const int net = blockIdx.y, element = blockIdx.x * 256 + threadIdx.x;
  if (active != nullptr && active[net] == 0) return;
  if (threadIdx.x < 9) f[threadIdx.x] = A(factors[9 * net + threadIdx.x]);
  __syncthreads();
  if (element >= count) return;
  const long long i = static_cast<long long>(net) * count + element;
  const A value = A(p[i]) * f[0], gradient = A(g[i]) + f[1] * value;
  const A first = f[2] * A(average[i]) + f[3] * gradient;
  const A second = f[4] * A(square[i]) + f[5] * (gradient * gradient);
  average[i] = T(first);
  square[i] = T(second);
  p[i] = T(value - f[6] * (first / (sqrt(second) * f[7] + f[8])));
}
