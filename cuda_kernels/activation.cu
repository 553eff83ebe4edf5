// Stand-alone activations, elementwise over `count` elements of any shape.  In a linear layer the same structs run in the
// epilogue of the GEMM (linear.cu), without a launch of their own.
//
//   activation_forward    y = act(z)
//   activation_backward   dz = dy act'(z), from the saved output or pre-activation
//
// Versions: 1. packs of four in a grid-stride loop (this one): memory-bound, so there is no next version.

#include "common/activations.cuh"
#include "common/pack.cuh"

template <class T, class Act>
__global__ void __launch_bounds__(256) activation_forward(T* y, const T* z, long long count, double alpha) {
  using A = Accumulator<T>;
  const int width = access_width(0, y, z);
  for_each_pack(count, [&](long long start, long long valid) {
    Pack<A, 4> value = load_pack<4>(z + start, valid, width);
#pragma unroll
    for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
    store_pack(y + start, value, valid, width);
  });
}

// dz may alias dy.
template <class T, class Act>
__global__ void __launch_bounds__(256)
    activation_backward(T* dz, const T* dy, const T* saved, long long count, double alpha) {
  using A = Accumulator<T>;
  const int width = access_width(0, dz, dy, saved);
  for_each_pack(count, [&](long long start, long long valid) {
    Pack<A, 4> gradient = load_pack<4>(dy + start, valid, width);
    if (Act::reads_saved) {
      const Pack<A, 4> of_forward = load_pack<4>(saved + start, valid, width);
#pragma unroll
      for (int e = 0; e < 4; e++) gradient.v[e] *= Act::derivative(of_forward.v[e], A(alpha));
    }
    store_pack(dz + start, gradient, valid, width);
  });
}
