// Optimisers: one launch over all parameters.  Each block processes 2048 elements of one tensor.
//
//   sgd_step    g += weight_decay p;  v = momentum v + (1 - dampening) g;  p -= lr (v, or g + momentum v)
//   adam_step   m, v: averages of g and g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
//
// State has the dtype of its parameter; halves are widened, and what is computed of them is rounded once, at its store.
// The hyperparameters and each tensor's step count are in device memory, so that a CUDA graph uses their current values.
// All blocks read the step counts first; the last block to finish adds 1 to each.
//
// Versions: 1. packs of four, pointers by value (this one): memory-bound.  Next: gradient scaling and clipping fused in.

#include "common/pack.cuh"
#include "common/reduce.cuh"
#include "common/tensor_table.cuh"

// Calls body(start, valid) for each pack of four in this block's part of `count` elements.
template <class Body>
__device__ __forceinline__ void for_each_pack_of_block(long long first, long long count, Body body) {
#pragma unroll
  for (int offset = 0; offset < ELEMENTS_PER_BLOCK; offset += 4 * 256) {
    const long long start = first + offset + 4 * threadIdx.x;
    if (start < count) body(start, count - start);
  }
}

template <int LISTS, int CAPACITY>
__device__ __forceinline__ void count_step(
    const TensorTable<LISTS, CAPACITY>& table, int steps, unsigned int* ticket) {
  if (!last_block(ticket)) return;
  for (int tensor = threadIdx.x; tensor < table.tensors; tensor += blockDim.x)
    table.template pointer<double>(steps, tensor)[0] += 1.0;
}

template <class T, bool MOMENTUM, bool NESTEROV, bool MAXIMIZE, int CAPACITY>
__global__ void __launch_bounds__(256) sgd_step(
    const __grid_constant__ TensorTable<4, CAPACITY> table, const double* hyperparameters, unsigned int* ticket) {
  using A = Accumulator<T>;
  enum { PARAMS, MOMENTA, STEPS, GRADS };
  const int tensor = table.tensor_of_block();
  T* params = table.template pointer<T>(PARAMS, tensor);
  T* momenta = table.template pointer<T>(MOMENTA, tensor);
  const T* grads = table.template pointer<const T>(GRADS, tensor);
  const A rate = A(hyperparameters[0]), momentum = A(hyperparameters[1]), share = A(1.0 - hyperparameters[2]);
  const A weight_decay = A(hyperparameters[3]);
  const bool first_step = table.template pointer<const double>(STEPS, tensor)[0] == 0.0;
  const int width = access_width(0, params, momenta, grads);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    Pack<A, 4> p = load_pack<4>(params + start, valid, width), v;
    const Pack<A, 4> gradient = load_pack<4>(grads + start, valid, width);
    if (MOMENTUM) v = load_pack<4>(momenta + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      A g = MAXIMIZE ? -gradient.v[e] : gradient.v[e];
      g += weight_decay * p.v[e];
      if (MOMENTUM) {
        v.v[e] = first_step ? g : momentum * v.v[e] + share * g;
        g = NESTEROV ? g + momentum * v.v[e] : v.v[e];
      }
      p.v[e] -= rate * g;
    }
    store_pack(params + start, p, valid, width);
    if (MOMENTUM) store_pack(momenta + start, v, valid, width);
  });
  count_step(table, STEPS, ticket);
}

template <class T, bool AMSGRAD, bool DECOUPLED, bool MAXIMIZE, int CAPACITY>
__global__ void __launch_bounds__(256) adam_step(
    const __grid_constant__ TensorTable<6, CAPACITY> table, const double* hyperparameters, unsigned int* ticket) {
  using A = Accumulator<T>;
  enum { PARAMS, AVERAGES, SQUARES, MAX_SQUARES, STEPS, GRADS };
  const int tensor = table.tensor_of_block();
  T* params = table.template pointer<T>(PARAMS, tensor);
  T* averages = table.template pointer<T>(AVERAGES, tensor);
  T* squares = table.template pointer<T>(SQUARES, tensor);
  T* max_squares = table.template pointer<T>(MAX_SQUARES, tensor);
  const T* grads = table.template pointer<const T>(GRADS, tensor);
  const double rate = hyperparameters[0], beta1 = hyperparameters[1], beta2 = hyperparameters[2];
  const double eps = hyperparameters[3], weight_decay = hyperparameters[4];
  __shared__ double shared_size, shared_correction;
  if (threadIdx.x == 0) {  // float64 pow is slow on most GPUs, so it is computed once per block
    const double step = table.template pointer<const double>(STEPS, tensor)[0] + 1.0;
    shared_size = rate / (1.0 - pow(beta1, step));
    shared_correction = 1.0 / sqrt(1.0 - pow(beta2, step));
  }
  __syncthreads();
  const A size = A(shared_size), correction = A(shared_correction);
  const int width = access_width(0, params, averages, squares, max_squares, grads);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_PER_BLOCK;
  for_each_pack_of_block(first, table.counts[tensor], [&](long long start, long long valid) {
    Pack<A, 4> p = load_pack<4>(params + start, valid, width), m = load_pack<4>(averages + start, valid, width);
    Pack<A, 4> v = load_pack<4>(squares + start, valid, width), largest;
    const Pack<A, 4> gradient = load_pack<4>(grads + start, valid, width);
    if (AMSGRAD) largest = load_pack<4>(max_squares + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) {
      A g = MAXIMIZE ? -gradient.v[e] : gradient.v[e];
      if (DECOUPLED)
        p.v[e] *= A(1.0 - rate * weight_decay);
      else
        g += A(weight_decay) * p.v[e];
      m.v[e] = A(beta1) * m.v[e] + A(1.0 - beta1) * g;
      v.v[e] = A(beta2) * v.v[e] + A(1.0 - beta2) * (g * g);
      A square = v.v[e];
      if (AMSGRAD) {
        if (!(largest.v[e] < square)) square = square != square ? square : largest.v[e];  // NaN if either is
        largest.v[e] = square;
      }
      p.v[e] -= size * (m.v[e] / (sqrt(square) * correction + A(eps)));
    }
    store_pack(params + start, p, valid, width);
    store_pack(averages + start, m, valid, width);
    store_pack(squares + start, v, valid, width);
    if (AMSGRAD) store_pack(max_squares + start, largest, valid, width);
  });
  count_step(table, STEPS, ticket);
}
