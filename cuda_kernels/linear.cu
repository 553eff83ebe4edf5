// Linear layers, forward and backward.  x (n, i), w (o, i), b (o,), y and dy (n, o); all contiguous.
//
//   linear_forward           y = act(x w^T + b), and the pre-activation z if backward needs it
//   linear_backward_input    dx = (dy w) act'(saved): the previous layer's activation derivative, in the epilogue
//   linear_backward_weight   dw = scale dy^T x and db = scale (column sums of dy), in one pass over dy
//
// Each is one launch; products with few tiles are split along depth inside of it (gemm/product.cuh).
//
// Versions: 1. SIMT tiles (this one).  Next: tensor-core mainloops with the same epilogues, and a chain of narrow layers in
// one launch.

#include "common/activations.cuh"
#include "gemm/product.cuh"

// ---- forward ---------------------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS, bool WHOLE, class Act>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) linear_forward(
    T* __restrict__ y, T* __restrict__ z, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, int n, int o, int i, int slices,
    double alpha) {
  using A = Accumulator<T>;
  NoSums none;
  product<T, Tile<T, ROWS, COLUMNS>>(
      Strided<T, true, WHOLE>(x, n, i, 1), Strided<T, true, WHOLE>(w, o, i, 1), i, {partials, tickets, slices},
      [&](int row, int column, Pack<A, 4>& value, int valid) {
        const long long at = static_cast<long long>(row) * o + column;
        const int width = access_width(o, y, z, b);
        if (b) {
          const Pack<A, 4> bias = load_pack<4>(b + column, valid, width);
#pragma unroll
          for (int e = 0; e < 4; e++) value.v[e] += bias.v[e];
        }
        if (z) store_pack(z + at, value, valid, width);
#pragma unroll
        for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
        store_pack(y + at, value, valid, width);
      },
      none);
}

// ---- backward: input -------------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS, bool WHOLE, class Act>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) linear_backward_input(
    T* __restrict__ dx, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ saved, int n, int i, int o, int slices,
    double alpha) {
  using A = Accumulator<T>;
  NoSums none;
  product<T, Tile<T, ROWS, COLUMNS>>(
      Strided<T, true, WHOLE>(dy, n, o, 1), Strided<T, false, WHOLE>(w, i, 1, i), o, {partials, tickets, slices},
      [&](int row, int column, Pack<A, 4>& value, int valid) {
        const long long at = static_cast<long long>(row) * i + column;
        const int width = access_width(i, dx, saved);
        if (Act::reads_saved) {
          const Pack<A, 4> of_forward = load_pack<4>(saved + at, valid, width);
#pragma unroll
          for (int e = 0; e < 4; e++) value.v[e] *= Act::derivative(of_forward.v[e], A(alpha));
        }
        store_pack(dx + at, value, valid, width);
      },
      none);
}

// ---- backward: weight and bias -----------------------------------------------------------------------------------------

// Without dw, i is 0: the product has no columns, and only the column sums are computed.
template <class T, int ROWS, int COLUMNS, bool WHOLE>
__global__ void __launch_bounds__(Tile<T, ROWS, COLUMNS>::THREADS, Tile<T, ROWS, COLUMNS>::BLOCKS) linear_backward_weight(
    T* __restrict__ dw, T* __restrict__ db, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ x, const Accumulator<T>* __restrict__ scale, int o, int i, int n,
    int slices) {
  using A = Accumulator<T>;
  using OfWeight = Tile<T, ROWS, COLUMNS>;
  const int across = i ? tiles(i, COLUMNS) : 1;
  LineSums<T, OfWeight, false> of_dy{{}, blockIdx.x % across == 0};
  const bool is_whole = product<T, OfWeight>(
      Strided<T, false, WHOLE>(dy, o, 1, o), Strided<T, false, WHOLE>(x, i, 1, i), n, {partials, tickets, slices},
      [&](int row, int column, Pack<A, 4>& value, int valid) {
        const A factor = scale ? scale[0] : A(1);
#pragma unroll
        for (int e = 0; e < 4; e++) value.v[e] *= factor;
        store_pack(dw + static_cast<long long>(row) * i + column, value, valid, access_width(i, dw));
      },
      of_dy);
  if (!is_whole || !of_dy.is_needed || !db) return;
  of_dy.finish([&](int column, A sum) {
    const int row = blockIdx.x / across * ROWS + column;
    if (row < o) db[row] = T(sum * (scale ? scale[0] : A(1)));
  });
}
