// Clipping of gradients: one launch over all tensors.  Each block works on 2048 elements of one tensor.
//
//   gradient_norm    norm = (sum |g|^order)^(1/order) over all elements of all tensors, or the largest |g|
//   clip_by_norm     g *= min(1, max_norm / (norm + 1e-6)); g is not touched where that is 1
//   clip_by_value    g = min(max(g, -limit), limit)
//
// NaN stays NaN, as in NumPy.  More tensors than a launch takes are several launches: the first starts the sum, the last
// takes the root.  Versions: 1. packs of four (this one): bound by memory.

#include "common/pack.cuh"
#include "common/reduce.cuh"
#include "common/tensor_table.cuh"

// ---- what is summed of an element, and what the norm is of the sum ---------------------------------------------------

struct Magnitudes : Sum {
  template <class T>
  static __device__ T of(T g, double) { return fabs(g); }
  template <class T>
  static __device__ T root(T sum, double) { return sum; }
};

struct Squares : Sum {
  template <class T>
  static __device__ T of(T g, double) { return g * g; }
  template <class T>
  static __device__ T root(T sum, double) { return sqrt(sum); }
};

struct Powers : Sum {
  template <class T>
  static __device__ T of(T g, double order) { return pow(fabs(g), T(order)); }
  template <class T>
  static __device__ T root(T sum, double order) { return pow(sum, T(1.0 / order)); }
};

struct Largest : Magnitudes {
  template <class T>
  static __device__ T combine(T a, T b) { return a != a || a > b ? a : b; }  // NaN of either stays
};

// ---- kernels ---------------------------------------------------------------------------------------------------------

// body(pointer, valid, whole) for each pack of four of this block's share of its tensor.
template <class T, class Body>
__device__ __forceinline__ void for_each_pack_of_gradient(const TensorTable<1>& table, Body body) {
  const int tensor = table.tensor_of_block();
  T* grads = table.template pointer<T>(0, tensor);
  const bool whole = aligned(grads);
  const long long first = static_cast<long long>(blockIdx.x - table.first_block[tensor]) * ELEMENTS_A_BLOCK;
#pragma unroll
  for (int offset = 0; offset < ELEMENTS_A_BLOCK; offset += 4 * 256) {
    const long long start = first + offset + 4 * threadIdx.x;
    if (start < table.counts[tensor]) body(grads + start, table.counts[tensor] - start, whole);
  }
}

template <class T, class Order>
__global__ void __launch_bounds__(256) gradient_norm(
    const __grid_constant__ TensorTable<1> table, T* norm, T* partials, unsigned int* ticket, double order, int first,
    int last) {
  T sum = T(0);
  for_each_pack_of_gradient<const T>(table, [&](const T* grads, long long valid, bool whole) {
    const Pack<T, 4> g = load_pack<4>(grads, valid, whole);
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (e < valid) sum = Order::combine(sum, Order::of(g.v[e], order));
  });
  sum = block_reduce<Order>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  if (!last_block(ticket)) return;
  sum = T(0);
  // past the L1 cache, which knows nothing of what other processors wrote
  for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x)
    sum = Order::combine(sum, __ldcg(partials + block));
  sum = block_reduce<Order>(sum);
  if (threadIdx.x > 0) return;
  if (!first) sum = Order::combine(norm[0], sum);
  norm[0] = last ? Order::root(sum, order) : sum;
}

template <class T>
__global__ void __launch_bounds__(256) clip_by_norm(
    const __grid_constant__ TensorTable<1> table, const T* norm, double max_norm) {
  const T factor = T(max_norm) / (norm[0] + T(1e-6));
  if (factor >= T(1)) return;  // not where it is NaN
  for_each_pack_of_gradient<T>(table, [&](T* grads, long long valid, bool whole) {
    Pack<T, 4> g = load_pack<4>(grads, valid, whole);
#pragma unroll
    for (int e = 0; e < 4; e++) g.v[e] *= factor;
    store_pack(grads, g, valid, whole);
  });
}

template <class T>
__global__ void __launch_bounds__(256) clip_by_value(const __grid_constant__ TensorTable<1> table, double limit) {
  const T most = T(limit);
  for_each_pack_of_gradient<T>(table, [&](T* grads, long long valid, bool whole) {
    Pack<T, 4> g = load_pack<4>(grads, valid, whole);
#pragma unroll
    for (int e = 0; e < 4; e++) g.v[e] = g.v[e] > most ? most : g.v[e] < -most ? -most : g.v[e];
    store_pack(grads, g, valid, whole);
  });
}
