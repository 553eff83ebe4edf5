// Linear layers, forward and backward.  x (n, i), w (o, i), b (o,), y and dy (n, o); all contiguous.
//
//   linear_forward           y = act(x w^T + b), and the pre-activation z if backward needs it
//   linear_backward_input    dx = (dy w) act'(saved): the previous layer's activation derivative, in the epilogue
//   linear_backward_weight   dw = scale dy^T x and db = scale (column sums of dy), in one pass over dy
//
// Each is one launch; products with few tiles are split along depth inside of it (gemm/product.cuh).
//
// MATH: see gemm/product.cuh.
//
// Versions: 1. SIMT tiles.  2. Tensor cores by mma.sync beside them (this one).  Next: wgmma, and a chain of narrow layers in
// one launch.

#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"

// ---- forward ---------------------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS, bool WHOLE, class Act, class MATH = Simt>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) linear_forward(
    T* __restrict__ y, T* __restrict__ z, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b, int n, int o, int i, int num_tiles,
    double alpha) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, MATH>;
  constexpr int PACK = OfProduct::PACK;
  for_each_part<OfProduct>(num_tiles, i, [&](const Part& part) {
    NoSums none;
    product<T, OfProduct>(
        part, part.tile, Strided<T, true, WHOLE, PACK>(x, n, i, 1), Strided<T, true, WHOLE, PACK>(w, o, i, 1), i,
        {partials, tickets}, Activated<T, Act, Rows>{{o}, y, z, b, alpha}, none);
  });
}

// ---- backward: input -------------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS, bool WHOLE, class Act, class MATH = Simt>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) linear_backward_input(
    T* __restrict__ dx, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ w, const T* __restrict__ saved, int n, int i, int o, int num_tiles,
    double alpha) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, MATH>;
  constexpr int PACK = OfProduct::PACK;
  for_each_part<OfProduct>(num_tiles, o, [&](const Part& part) {
    NoSums none;
    product<T, OfProduct>(
        part, part.tile, Strided<T, true, WHOLE, PACK>(dy, n, o, 1), Strided<T, false, WHOLE, PACK>(w, i, 1, i), o,
        {partials, tickets}, Derived<T, Act, Rows>{{i}, dx, saved, alpha}, none);
  });
}

// ---- backward: weight and bias -----------------------------------------------------------------------------------------

// Without dw, i is 0: the product has no columns, and only the column sums are computed.
template <class T, int ROWS, int COLUMNS, bool WHOLE, class MATH = Simt>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) linear_backward_weight(
    T* __restrict__ dw, T* __restrict__ db, Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets,
    const T* __restrict__ dy, const T* __restrict__ x, const Accumulator<T>* __restrict__ scale, int o, int i, int n,
    int num_tiles) {
  using OfWeight = TileOf<T, ROWS, COLUMNS, MATH>;
  constexpr int PACK = OfWeight::PACK;
  for_each_part<OfWeight>(num_tiles, n, [&](const Part& part) {
    const int across = i ? tiles(i, COLUMNS) : 1;
    __shared__ int first_row;  // the mainloop needs the registers
    if (threadIdx.x == 0) first_row = part.tile / across * ROWS;
    LineSums<T, OfWeight, false, LINE_GROUPS<MATH>> of_dy{{}, part.tile % across == 0};
    T* const out = dw;
    const Scaled<T> mean{{i}, out, scale};
    const bool is_whole = product<T, OfWeight>(
        part, part.tile, Strided<T, false, WHOLE, PACK>(dy, o, 1, o), Strided<T, false, WHOLE, PACK>(x, i, 1, i), n,
        {partials, tickets}, mean, of_dy);
    if (!is_whole || !of_dy.is_needed || !db) return;
    of_dy.finish([&](int column, Accumulator<T> sum) {
      const int row = first_row + column;
      if (row < o) db[row] = T(sum * mean.factor());
    });
  });
}
