// Recurrent layers: all steps of one direction in one launch.  width: units of a state; GATES numbers of each unit in a step.
//
//   recurrence_forward    y (rows, width) = the states h of all steps; hn, cn (n, width) = the last states; gates (rows, GATES
//                         width) = the products with the input on entry, the gates on return (of an RNN unchanged)
//   recurrence_backward   dgates, dhidden (rows, GATES width) = the gradients of the products with the input and with the state
//                         (dhidden is null where they are equal); previous (rows, width) = the states h before each step
//
// Rows are packed by step: step t has rows starts[t] to starts[t + 1], of the first sequences, which are the longest.  w is
// (width, GATES width) in forward and (GATES width, width) in backward, so that threads of a warp read neighbours.
//
// A block has some sequences, and no other block needs anything of them, so there is no barrier over the grid.  A thread has
// one unit, or every blockDim.x-th one, of all sequences of its block.  States are in shared memory, in the accumulator's type.
//
// Versions: 1. weights from the L2 cache, in each step (this one).  Next: weights in the shared memory of a cluster.

#include "common/activations.cuh"
#include "common/half.cuh"

// ---- cells --------------------------------------------------------------------------------------------------------------
// `gates` point to the numbers of a unit, one for each gate, `width` elements apart; `p` are the products with the state.
// forward() returns the new h.  backward() takes dh and returns the part of the gradient of the state before that does not go
// through the products.

struct Lstm {  // i f g o; c is the cell state, `inner` keeps it
  static constexpr int GATES = 4;
  static constexpr bool HAS_CELLS = true, KEEPS_HIDDEN = false;

  template <class T, class A>
  static __device__ A forward(T* gates, T* inner, long long width, const A* p, A, A* c) {
    const A i = logistic(gates[0] + p[0]), f = logistic(gates[width] + p[1]);
    const A g = tanh(gates[2 * width] + p[2]), o = logistic(gates[3 * width] + p[3]);
    *c = f * *c + i * g;
    gates[0] = T(i);
    gates[width] = T(f);
    gates[2 * width] = T(g);
    gates[3 * width] = T(o);
    inner[0] = T(*c);
    return o * tanh(*c);
  }
  template <class T, class A>
  static __device__ A backward(A* dgates, A*, const T* gates, const T* inner, A, long long width, A, A before, A dh, A* dc) {
    const A i = gates[0], f = gates[width], g = gates[2 * width], o = gates[3 * width], t = tanh(A(inner[0]));
    const A of_c = *dc + dh * o * (A(1) - t * t);
    dgates[0] = of_c * g * i * (A(1) - i);
    dgates[1] = of_c * before * f * (A(1) - f);
    dgates[2] = of_c * i * (A(1) - g * g);
    dgates[3] = dh * t * o * (A(1) - o);
    *dc = of_c * f;
    return A(0);
  }
};

struct Gru {  // r z n; `inner` keeps the product with the state that r multiplies
  static constexpr int GATES = 3;
  static constexpr bool HAS_CELLS = false, KEEPS_HIDDEN = true;

  template <class T, class A>
  static __device__ A forward(T* gates, T* inner, long long width, const A* p, A h, A*) {
    const A r = logistic(gates[0] + p[0]), z = logistic(gates[width] + p[1]), n = tanh(gates[2 * width] + r * p[2]);
    gates[0] = T(r);
    gates[width] = T(z);
    gates[2 * width] = T(n);
    inner[0] = T(p[2]);
    return n + z * (h - n);
  }
  template <class T, class A>
  static __device__ A backward(
      A* dgates, A* dhidden, const T* gates, const T* inner, A, long long width, A before, A, A dh, A*) {
    const A r = gates[0], z = gates[width], n = gates[2 * width];
    dgates[2] = dh * (A(1) - z) * (A(1) - n * n);
    dgates[1] = dhidden[1] = dh * (before - n) * z * (A(1) - z);
    dgates[0] = dhidden[0] = dgates[2] * inner[0] * r * (A(1) - r);
    dhidden[2] = dgates[2] * r;
    return dh * z;
  }
};

template <class Act>
struct Rnn {  // h = act(z)
  static constexpr int GATES = 1;
  static constexpr bool HAS_CELLS = false, KEEPS_HIDDEN = false;

  template <class T, class A>
  static __device__ A forward(T* gates, T*, long long, const A* p, A, A*) {
    return Act::forward(gates[0] + p[0], A(0));
  }
  template <class T, class A>
  static __device__ A backward(A* dgates, A*, const T*, const T*, A y, long long, A, A, A dh, A*) {
    dgates[0] = dh * Act::derivative(y, A(0));
    return A(0);
  }
};

// ---- kernels --------------------------------------------------------------------------------------------------------------

// The rows of a step.
struct Step {
  long long first;
  int count;

  __device__ Step(const long long* starts, int step) : first(starts[step]), count(starts[step + 1] - starts[step]) {}
};

template <class T, class Cell, int SEQUENCES>
__global__ void __launch_bounds__(512) recurrence_forward(
    T* __restrict__ y, T* __restrict__ hn, T* __restrict__ cn, T* __restrict__ gates, T* __restrict__ inner,
    const T* __restrict__ w, const T* __restrict__ b, const T* __restrict__ h0, const T* __restrict__ c0,
    const long long* __restrict__ starts, int steps, int n, int width, bool reverse) {
  using A = Accumulator<T>;
  constexpr int GATES = Cell::GATES;
  extern __shared__ double shared[];
  A* h = reinterpret_cast<A*>(shared);  // (sequences, width), before a step
  A* new_h = h + SEQUENCES * width;     // and after it
  A* const c = new_h + SEQUENCES * width;
  const int first = blockIdx.x * SEQUENCES;
  for (int unit = threadIdx.x; unit < width; unit += blockDim.x)
    for (int s = 0; s < SEQUENCES; s++) {
      const long long at = static_cast<long long>(first + s) * width + unit;
      h[s * width + unit] = h0 && first + s < n ? A(h0[at]) : A(0);
      if (Cell::HAS_CELLS) c[s * width + unit] = c0 && first + s < n ? A(c0[at]) : A(0);
    }
  __syncthreads();
  for (int number = 0; number < steps; number++) {
    const Step step(starts, reverse ? steps - 1 - number : number);
    const int active = step.count - first;
    if (active <= 0) continue;
    for (int unit = threadIdx.x; unit < width; unit += blockDim.x) {
      A sums[SEQUENCES][GATES];
#pragma unroll
      for (int gate = 0; gate < GATES; gate++)
#pragma unroll
        for (int s = 0; s < SEQUENCES; s++) sums[s][gate] = b ? A(b[gate * width + unit]) : A(0);
#pragma unroll 4
      for (int k = 0; k < width; k++) {
        const T* row = w + static_cast<long long>(k) * GATES * width + unit;
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          const A weight = row[static_cast<long long>(gate) * width];
#pragma unroll
          for (int s = 0; s < SEQUENCES; s++) sums[s][gate] += h[s * width + k] * weight;
        }
      }
#pragma unroll
      for (int s = 0; s < SEQUENCES; s++) {
        A after = h[s * width + unit];
        if (s < active) {
          const long long row = step.first + first + s, at = row * width + unit;
          after = Cell::forward(
              gates + row * GATES * width + unit, inner + at, static_cast<long long>(width), sums[s], after,
              c + s * width + unit);
          y[at] = T(after);
        }
        new_h[s * width + unit] = after;
      }
    }
    __syncthreads();
    A* const old = h;
    h = new_h;
    new_h = old;
  }
  for (int unit = threadIdx.x; unit < width; unit += blockDim.x)
    for (int s = 0; s < min(SEQUENCES, n - first); s++) {
      const long long at = static_cast<long long>(first + s) * width + unit;
      hn[at] = T(h[s * width + unit]);
      if (Cell::HAS_CELLS) cn[at] = T(c[s * width + unit]);
    }
}

template <class T, class Cell, int SEQUENCES>
__global__ void __launch_bounds__(512) recurrence_backward(
    T* __restrict__ dgates, T* __restrict__ dhidden, T* __restrict__ previous, T* __restrict__ dh, T* __restrict__ dc,
    const T* __restrict__ dy, const T* __restrict__ dhn, const T* __restrict__ dcn, const T* __restrict__ gates,
    const T* __restrict__ inner, const T* __restrict__ y, const T* __restrict__ w, const T* __restrict__ h0,
    const T* __restrict__ c0, const long long* __restrict__ starts, int steps, int n, int width, bool reverse) {
  using A = Accumulator<T>;
  constexpr int GATES = Cell::GATES;
  extern __shared__ double shared[];
  A* const products = reinterpret_cast<A*>(shared);     // (sequences, GATES width): the gradients of the products with h
  A* const dstate = products + SEQUENCES * GATES * width;  // (sequences, width): of the state after a step, then before it
  A* const dcell = dstate + SEQUENCES * width;
  const int first = blockIdx.x * SEQUENCES;
  for (int unit = threadIdx.x; unit < width; unit += blockDim.x)
    for (int s = 0; s < SEQUENCES; s++) {
      const long long at = static_cast<long long>(first + s) * width + unit;
      dstate[s * width + unit] = dhn && first + s < n ? A(dhn[at]) : A(0);
      if (Cell::HAS_CELLS) dcell[s * width + unit] = dcn && first + s < n ? A(dcn[at]) : A(0);
      for (int gate = 0; gate < GATES; gate++) products[(s * GATES + gate) * width + unit] = A(0);
    }
  for (int number = steps - 1; number >= 0; number--) {
    const Step step(starts, reverse ? steps - 1 - number : number);
    const int active = min(SEQUENCES, step.count - first);
    if (active <= 0) continue;
    const Step before(starts, number == 0 ? 0 : reverse ? steps - number : number - 1);
    for (int unit = threadIdx.x; unit < width; unit += blockDim.x)
      for (int s = 0; s < active; s++) {
        const int sequence = first + s;
        const long long row = step.first + sequence, at = row * width + unit;
        const bool is_first = number == 0 || sequence >= before.count;
        const long long at_before = (is_first ? sequence : before.first + sequence) * width + unit;
        const T *states = is_first ? h0 : y, *cells = is_first ? c0 : inner;
        const A h = states ? A(states[at_before]) : A(0), c = cells ? A(cells[at_before]) : A(0);
        A of_input[GATES], of_state[GATES];
        dstate[s * width + unit] = Cell::backward(
            of_input, of_state, gates + row * GATES * width + unit, inner + at, A(y[at]), static_cast<long long>(width), h, c,
            dstate[s * width + unit] + (dy ? A(dy[at]) : A(0)), dcell + s * width + unit);
#pragma unroll
        for (int gate = 0; gate < GATES; gate++) {
          const long long to = (row * GATES + gate) * width + unit;
          dgates[to] = T(of_input[gate]);
          if (Cell::KEEPS_HIDDEN) dhidden[to] = T(of_state[gate]);
          products[(s * GATES + gate) * width + unit] = Cell::KEEPS_HIDDEN ? of_state[gate] : of_input[gate];
        }
        previous[at] = T(h);
      }
    __syncthreads();
    for (int unit = threadIdx.x; unit < width; unit += blockDim.x) {
      A sums[SEQUENCES] = {};
#pragma unroll 4
      for (int k = 0; k < GATES * width; k++) {
        const A weight = w[static_cast<long long>(k) * width + unit];
#pragma unroll
        for (int s = 0; s < SEQUENCES; s++) sums[s] += products[s * GATES * width + k] * weight;
      }
#pragma unroll
      for (int s = 0; s < SEQUENCES; s++)
        if (s < active) dstate[s * width + unit] += sums[s];
    }
    __syncthreads();
  }
  for (int unit = threadIdx.x; unit < width; unit += blockDim.x)
    for (int s = 0; s < min(SEQUENCES, n - first); s++) {
      const long long at = static_cast<long long>(first + s) * width + unit;
      dh[at] = T(dstate[s * width + unit]);
      if (Cell::HAS_CELLS) dc[at] = T(dcell[s * width + unit]);
    }
}
