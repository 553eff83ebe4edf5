// Batched matrix products with any strides (transposed, broadcast with stride 0, sliced, reversed).
//
//   matmul_forward   out[j] = a[j] b[j]:  a (batches, rows, depth), b (batches, depth, columns)
//                    -> out (batches, rows, columns), contiguous
//
// Versions: 1. SIMT tiles, guarded loads (this one; gemm/simt.cuh).  Next: split-K for products with few tiles.

#include "gemm/simt.cuh"

template <class T, int TILE, bool A_ALONG_DEPTH, bool B_ALONG_DEPTH>
__global__ void __launch_bounds__(GEMM_THREADS, GEMM_BLOCKS<T, TILE>) matmul_forward(
    T* __restrict__ out, const T* __restrict__ a, const T* __restrict__ b, int batches, int rows, int columns, int depth,
    long long a_batch, long long a_row, long long a_depth, long long b_batch, long long b_depth, long long b_column) {
  const int across = tiles(columns, TILE);
  const int row0 = blockIdx.x / across * TILE, column0 = blockIdx.x % across * TILE;
  for (int batch = blockIdx.y; batch < batches; batch += gridDim.y) {
    T* c = out + static_cast<long long>(batch) * rows * columns;
    const int width = access_width(columns, c);
    gemm<T, TILE>(
        Operand<T, A_ALONG_DEPTH>(a + batch * a_batch, rows, a_row, a_depth),
        Operand<T, B_ALONG_DEPTH>(b + batch * b_batch, columns, b_column, b_depth), row0, column0, 0, depth,
        [&](int row, int column, const Pack<Accumulator<T>, 4>& sum, int valid) {
          store_pack(c + static_cast<long long>(row) * columns + column, sum, valid, width);
        });
  }
}
