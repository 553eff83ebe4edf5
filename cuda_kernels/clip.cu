// Gradient clipping: one launch over many tensors.  Each block processes 2048 elements of one tensor.
//
//   gradient_norm    norm = (sum |g|^order)^(1/order) over all elements of all tensors, or the largest |g|
//   clip_by_norm     g *= min(1, max_norm / (norm + 1e-6)); g is not written if that factor is 1
//   clip_by_value    g = min(max(g, -limit), limit)
//
// NaN propagates, as in NumPy.  If the tensors do not fit into one table there are several launches: the first one
// starts the sum, the last one takes the root.  Versions: 1. packs of four (this one): memory-bound.

#include "common/gradients.cuh"
#include "common/reduce.cuh"

// ---- norms: of(g) is an element's term, combine() adds terms, root() turns the sum into the norm ----------------------

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
  static __device__ T combine(T a, T b) { return a != a || a > b ? a : b; }  // NaN if either is NaN
};

// ---- kernels ---------------------------------------------------------------------------------------------------------

template <class T, class Order, int CAPACITY>
__global__ void __launch_bounds__(256) gradient_norm(
    const __grid_constant__ TensorTable<1, CAPACITY> table, Accumulator<T>* norm, Accumulator<T>* partials,
    unsigned int* ticket, double order, int first, int last) {
  using A = Accumulator<T>;
  A sum = 0;
  for_each_pack_of_gradient<const T>(table, [&](const T* grads, long long valid, int width) {
    const Pack<A, 4> g = load_pack<4>(grads, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (e < valid) sum = Order::combine(sum, Order::of(g.v[e], order));
  });
  sum = block_reduce<Order>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
  if (!last_block(ticket)) return;
  sum = 0;
  // bypass the L1 cache, which is not coherent with the writes of other SMs
  for (int block = threadIdx.x; block < gridDim.x; block += blockDim.x)
    sum = Order::combine(sum, __ldcg(partials + block));
  sum = block_reduce<Order>(sum);
  if (threadIdx.x > 0) return;
  if (!first) sum = Order::combine(norm[0], sum);
  norm[0] = last ? Order::root(sum, order) : sum;
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) clip_by_norm(
    const __grid_constant__ TensorTable<1, CAPACITY> table, const Accumulator<T>* norm, double max_norm) {
  using A = Accumulator<T>;
  const A factor = A(max_norm) / (norm[0] + A(1e-6));
  if (factor >= A(1)) return;  // false for NaN, so a NaN norm makes all gradients NaN
  for_each_pack_of_gradient<T>(table, [&](T* grads, long long valid, int width) {
    Pack<A, 4> g = load_pack<4>(grads, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) g.v[e] *= factor;
    store_pack(grads, g, valid, width);
  });
}

template <class T, int CAPACITY>
__global__ void __launch_bounds__(256) clip_by_value(const __grid_constant__ TensorTable<1, CAPACITY> table, double limit) {
  using A = Accumulator<T>;
  const A most = A(limit);
  for_each_pack_of_gradient<T>(table, [&](T* grads, long long valid, int width) {
    Pack<A, 4> g = load_pack<4>(grads, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) g.v[e] = g.v[e] > most ? most : g.v[e] < -most ? -most : g.v[e];
    store_pack(grads, g, valid, width);
  });
}
