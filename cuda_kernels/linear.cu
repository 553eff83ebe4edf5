// Linear layers, forward and backward.  x (n, i), w (o, i), b (o,), y and dy (n, o); all contiguous.
//
//   linear_forward                  y = act(x w^T + b), and the pre-activation z if backward needs it
//   linear_backward_input           dx = (dy w) act'(saved): the previous layer's activation derivative, in the epilogue
//   linear_backward_weight          dw = scale dy^T x and db = scale (column sums of dy), in one pass over dy
//   linear_backward_weight_partial  the same, unscaled, for the slice of the batch numbered blockIdx.y, into partials
//   linear_backward_weight_reduce   dw, db = scale (partials[0] + partials[1] + ...)
//
// Tiles are numbered along blockIdx.x, row by row, so that neither extent is limited by the grid's y or z limit.
//
// Versions: 1. SIMT tiles of 128 or 64 (this one; gemm/simt.cuh).  Next: tensor-core mainloops with the same epilogues, and
// a chain of narrow layers in one launch.

#include "common/activations.cuh"
#include "gemm/simt.cuh"

// ---- forward ---------------------------------------------------------------------------------------------------------

template <class T, int TILE, class Act>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T, TILE>) linear_forward(
    T* __restrict__ y, T* __restrict__ z, const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b,
    int n, int o, int i, double alpha) {
  using A = Accumulator<T>;
  const int across = tiles(o, TILE);
  const int width = access_width(o, y, z, b);  // of b too: its own width would take the register that makes TILE 128 spill
  gemm<T, TILE>(
      Operand<T, true>(x, n, i, 1), Operand<T, true>(w, o, i, 1), blockIdx.x / across * TILE, blockIdx.x % across * TILE,
      0, i, [&](int row, int column, Pack<A, 4>& value, int valid) {
        const long long at = static_cast<long long>(row) * o + column;
        if (b) {
          const Pack<A, 4> bias = load_pack<4>(b + column, valid, width);
#pragma unroll
          for (int e = 0; e < 4; e++) value.v[e] += bias.v[e];
        }
        if (z) store_pack(z + at, value, valid, width);
#pragma unroll
        for (int e = 0; e < 4; e++) value.v[e] = Act::forward(value.v[e], A(alpha));
        store_pack(y + at, value, valid, width);
      });
}

// ---- backward: input -------------------------------------------------------------------------------------------------

template <class T, int TILE, class Act>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T, TILE>) linear_backward_input(
    T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ saved, int n, int i,
    int o, double alpha) {
  using A = Accumulator<T>;
  const int across = tiles(i, TILE);
  const int width = access_width(i, dx, saved);
  gemm<T, TILE>(
      Operand<T, true>(dy, n, o, 1), Operand<T, false>(w, i, 1, i), blockIdx.x / across * TILE,
      blockIdx.x % across * TILE, 0, o, [&](int row, int column, Pack<A, 4>& value, int valid) {
        const long long at = static_cast<long long>(row) * i + column;
        if (Act::reads_saved) {
          const Pack<A, 4> of_forward = load_pack<4>(saved + at, valid, width);
#pragma unroll
          for (int e = 0; e < 4; e++) value.v[e] *= Act::derivative(of_forward.v[e], A(alpha));
        }
        store_pack(dx + at, value, valid, width);
      });
}

// ---- backward: weight and bias -----------------------------------------------------------------------------------------

// Sums the columns of dy while its tiles are in shared memory: thread t sums column t of the tile.
template <class T, int TILE>
struct ColumnSums {
  Accumulator<T>& sum;
  int column0;  // of the tile: only the blocks of the first tile column sum, all others read the same dy

  template <class Shared>
  __device__ __forceinline__ void operator()(const Shared& of_dy) {
    if (column0 == 0 && threadIdx.x < TILE) {
#pragma unroll
      for (int k = 0; k < Step<T, TILE, false>::DEPTH; k++) sum += of_dy[k][threadIdx.x];
    }
  }
};

// Computes the tile of dy^T x over samples `first` to `end`, and calls with_sum(column of dy, its sum) in the blocks of the
// first tile column.
template <class T, int TILE, class Epilogue, class WithSum>
__device__ __forceinline__ void weight_tile(
    const T* dy, const T* x, int o, int i, int first, int end, Epilogue epilogue, WithSum with_sum) {
  const int across = i ? tiles(i, TILE) : 1;
  const int row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
  Accumulator<T> sum = 0;
  gemm<T, TILE>(
      Operand<T, false>(dy, o, 1, o), Operand<T, false>(x, i, 1, i), row0, column0, first, end,
      epilogue, ColumnSums<T, TILE>{sum, column0});
  const int row = row0 + threadIdx.x;
  if (column0 == 0 && threadIdx.x < TILE && row < o) with_sum(row, sum);
}

// Without dw, i is 0: the product has no columns, and only the column sums are computed.
template <class T, int TILE>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T, TILE>) linear_backward_weight(
    T* __restrict__ dw, T* __restrict__ db, const T* __restrict__ dy, const T* __restrict__ x,
    const Accumulator<T>* __restrict__ scale, int o, int i, int n) {
  using A = Accumulator<T>;
  const A factor = scale ? scale[0] : A(1);
  const int width = access_width(i, dw);
  weight_tile<T, TILE>(
      dy, x, o, i, 0, n,
      [&](int row, int column, Pack<A, 4>& value, int valid) {
#pragma unroll
        for (int e = 0; e < 4; e++) value.v[e] *= factor;
        store_pack(dw + static_cast<long long>(row) * i + column, value, valid, width);
      },
      [&](int row, A sum) {
        if (db) db[row] = T(sum * factor);
      });
}

// partials (slices, o i + o): slice s covers samples s * rows to (s + 1) * rows and contains dy^T x, then the column sums.
template <class T, int TILE>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T, TILE>) linear_backward_weight_partial(
    Accumulator<T>* __restrict__ partials, const T* __restrict__ dy, const T* __restrict__ x, int o, int i, int n, int rows) {
  using A = Accumulator<T>;
  A* part = partials + static_cast<long long>(blockIdx.y) * o * (i + 1);
  const int first = static_cast<int>(blockIdx.y) * rows, end = min(first + rows, n);
  const int width = access_width(i, part);
  weight_tile<T, TILE>(
      dy, x, o, i, first, end,
      [&](int row, int column, const Pack<A, 4>& value, int valid) {
        store_pack(part + static_cast<long long>(row) * i + column, value, valid, width);
      },
      [&](int row, A sum) { part[static_cast<long long>(o) * i + row] = sum; });
}

template <class T>
__global__ void __launch_bounds__(256) linear_backward_weight_reduce(
    T* __restrict__ dw, T* __restrict__ db, const Accumulator<T>* __restrict__ partials,
    const Accumulator<T>* __restrict__ scale, long long products, long long count, int slices) {
  using A = Accumulator<T>;
  const A factor = scale ? scale[0] : A(1);
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x; at < count; at += stride) {
    A sum = partials[at];
#pragma unroll 4
    for (int slice = 1; slice < slices; slice++) sum += partials[slice * count + at];
    if (at < products) {
      if (dw) dw[at] = T(sum * factor);
    } else if (db) {
      db[at - products] = T(sum * factor);
    }
  }
}
