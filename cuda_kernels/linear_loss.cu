// The last linear layer of a classifier and softmax cross-entropy against labels, in one launch.
//
//   linear_forward_loss   y = x w^T + b, with the bits of linear_forward (linear.cu); value, dx and factor of y and the labels,
//                         with those of cross_entropy_labels (cross_entropy.cu)
//
// A tile holds whole rows of y, since there are no more classes than columns of a tile: the block that runs its epilogue has
// all that the softmax of these rows needs.  The last tile sums the losses, in the order of cross_entropy_labels: eight rows
// each, then the sums of these as a block of 256 threads adds them.
//
// Versions: 1. rows are read again from the cache (this one).  Next: rows kept in shared memory.

#include "common/faults.cuh"
#include "common/softmax_loss.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"

enum { ROWS_OF_PARTIAL = 8, THREADS_OF_SUM = 256 };

// Returns, in every thread, the sum of `count` partials of other blocks in the order of sum_of_partials in a block of 256
// threads.
template <class A>
__device__ __forceinline__ A sum_in_order(const A* partials, int count) {
  __shared__ A of_warp[THREADS_OF_SUM / 32];
  const int lane = threadIdx.x % 32;
  __syncthreads();  // all threads have read the result of a previous call
  for (int warp = threadIdx.x / 32; warp < THREADS_OF_SUM / 32; warp += blockDim.x / 32) {
    A sum = A(0);
    for (int partial = warp * 32 + lane; partial < count; partial += THREADS_OF_SUM) sum += __ldcg(partials + partial);
    sum = warp_reduce<Sum>(sum);
    if (lane == 0) of_warp[warp] = sum;
  }
  __syncthreads();
  A sum = of_warp[0];
  for (int warp = 1; warp < THREADS_OF_SUM / 32; warp++) sum += of_warp[warp];
  return sum;
}

// Cross-entropy of the rows of a tile of y, and of all rows by the block that finishes last.  A function of its own, so that
// the registers that it needs are not taken from the main loop of the product.
template <class T, int ROWS, int THREADS, Reduction REDUCTION>
__device__ __noinline__ void loss_of_tile(
    const T* y, T* value, T* dx, Accumulator<T>* factor, Accumulator<T>* losses, unsigned int* ticket, long long* fault,
    const long long* labels, int first_row, int n, int o, int num_tiles, long long ignore_index, int code) {
  using A = Accumulator<T>;
  using Group = RowGroup<true>;
  // Of each row of a tile its loss, and whether it counts; the rows of a partial are a column, so that no banks collide.
  __shared__ A of_rows[ROWS_OF_PARTIAL][ROWS / ROWS_OF_PARTIAL][2];
  int first_bad = -1;  // row of the warp
  for (int row = first_row + threadIdx.x / 32; row < first_row + ROWS; row += THREADS / 32) {
    A loss = A(0), counted = A(0);
    if (row < n) {
      const long long label = labels[row], start = static_cast<long long>(row) * o;
      const bool counts = label != ignore_index, in_range = label >= 0 && label < o;
      loss = labelled_row<Group>(y + start, dx + start, o, label, counts, in_range);
      counted = counts ? A(1) : A(0);
      if (counts && !in_range && first_bad < 0) first_bad = row;
      if (REDUCTION == Reduction::none && Group::member() == 0) value[row] = T(loss);
    }
    if (Group::member() == 0) {
      A* const of_row = of_rows[row % ROWS_OF_PARTIAL][(row - first_row) / ROWS_OF_PARTIAL];
      of_row[0] = loss;
      of_row[1] = counted;
    }
  }
  if (first_bad >= 0)
    report_first(fault, first_bad, BadLabel{labels, ignore_index, o}, code, labels[first_bad], o, ignore_index);
  if (REDUCTION == Reduction::none) return;
  __syncthreads();
  for (int group = threadIdx.x; group < 2 * (ROWS / ROWS_OF_PARTIAL); group += THREADS) {
    const int which = group % 2, partial = group / 2;
    A sum = of_rows[0][partial][which];
    for (int row = 1; row < ROWS_OF_PARTIAL; row++) sum += of_rows[row][partial][which];
    losses[which * MAX_BLOCKS + first_row / ROWS_OF_PARTIAL + partial] = sum;
  }
  if (!is_last(ticket, num_tiles)) return;
  const int count = tiles(n, ROWS_OF_PARTIAL);
  const A total = sum_in_order(losses, count), rows = sum_in_order(losses + MAX_BLOCKS, count);
  if (threadIdx.x == 0) store_reduced<T, REDUCTION>(value, factor, total, rows);
}

template <class T, int ROWS, int COLUMNS, bool WHOLE, Reduction REDUCTION, class MATH = Simt>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) linear_forward_loss(
    T* y, T* value, T* dx, Accumulator<T>* factor, Accumulator<T>* losses, unsigned int* ticket, long long* fault,
    Accumulator<T>* __restrict__ partials, unsigned int* __restrict__ tickets, const T* __restrict__ x,
    const T* __restrict__ w, const T* __restrict__ b, const long long* labels, int n, int o, int i, int num_tiles,
    long long ignore_index, int code) {
  using OfProduct = TileOf<T, ROWS, COLUMNS, MATH>;
  constexpr int PACK = OfProduct::PACK;
  for_each_part<OfProduct>(num_tiles, i, [&](const Part& part) {
    NoSums none;
    const bool is_finished = product<T, OfProduct>(
        part, part.tile, Strided<T, true, WHOLE, PACK>(x, n, i, 1), Strided<T, true, WHOLE, PACK>(w, o, i, 1), i,
        {partials, tickets}, Activated<T, Identity, Rows>{{o}, y, nullptr, b, 0.0}, none);
    if (!is_finished) return;
    loss_of_tile<T, ROWS, OfProduct::THREADS, REDUCTION>(
        y, value, dx, factor, losses, ticket, fault, labels, part.tile * ROWS, n, o, num_tiles, ignore_index, code);
  });
}
