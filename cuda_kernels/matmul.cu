// Batched matrix products with any strides (transposed, broadcast with stride 0, sliced, reversed).
//
//   matmul_forward   out[j] = a[j] b[j]:  a (batches, rows, depth), b (batches, depth, columns)
//                    -> out (batches, rows, columns), contiguous
//
// MATH: see gemm/product.cuh.
//
// Versions: 1. SIMT tiles, split along depth if a single product has few.  2. Tensor cores by mma.sync beside them (this one).
// Next: wgmma.

#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"

template <class T, int ROWS, int COLUMNS, bool WHOLE, bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class MATH = Simt>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) matmul_forward(
    T* __restrict__ out, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets, const T* __restrict__ a,
    const T* __restrict__ b, int rows, int columns, int depth, int num_tiles, long long a_batch, long long a_row,
    long long a_depth, long long b_batch, long long b_depth, long long b_column) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, MATH>;
  const int of_product = tiles(rows, ROWS) * tiles(columns, COLUMNS);
  for_each_part<OfProduct>(num_tiles, depth, [&](const Part& part) {
    const long long batch = part.tile / of_product;
    __shared__ T* c;  // the mainloop needs the registers
    if (threadIdx.x == 0) c = out + batch * rows * columns;
    NoSums none;
    product<T, OfProduct>(
        part, part.tile % of_product,
        Strided<T, A_ALONG_DEPTH, WHOLE, OfProduct::PACK>(
            a + batch * a_batch, rows, WHOLE && !A_ALONG_DEPTH ? 1 : a_row, WHOLE && A_ALONG_DEPTH ? 1 : a_depth),
        Strided<T, B_ALONG_DEPTH, WHOLE, OfProduct::PACK>(
            b + batch * b_batch, columns, WHOLE && !B_ALONG_DEPTH ? 1 : b_column, WHOLE && B_ALONG_DEPTH ? 1 : b_depth),
        depth, {partials, tickets}, Scaled<T>{{columns}, c, nullptr}, none);
  });
}
