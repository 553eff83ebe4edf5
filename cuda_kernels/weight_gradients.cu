// The gradients of the weights and biases of several linear layers in one launch, and an optimizer's step on them.
//
//   linear_backward_weights   of each layer dw = scale dy^T x and db = scale (column sums of dy), with the bits of
//                             linear_backward_weight (linear.cu); then, unless Rule is NoRule, the update of w and b
//
// The entries of the table are gradients: first those of the weights, each of which has blocks of its own, then those of
// biases, each of which is computed by the blocks of its weight.  The blocks that run the epilogue of a tile of dw also
// update that tile of w: no block needs another one's gradients.  The last block of the launch advances the counters of the
// optimizer.
//
// Versions: 1. tiles of one shape for all layers (this one).  Next: wgmma.

#include "common/tensor_table.cuh"
#include "common/update_rules.cuh"
#include "gemm/epilogue.cuh"
#include "gemm/product.cuh"

struct NoRule {
  enum { STATES, FACTORS };
};

// The products of a launch; packed by gpunet.ops.weight_gradients.
template <int CAPACITY>
struct WeightProducts {
  struct Product {
    int rows, columns, depth, tiles;
    int bias;      // the entry of the bias's gradient, or -1
    int is_whole;  // see gemm/source.cuh
  } of[CAPACITY];
};

enum { GRADS, PARAMS, FIRST_STATE, STEPS = FIRST_STATE + 3, PARTIALS, TICKETS, DYS, XS, LISTS };

// The blocks of a product.
struct BlocksOfEntry {
  const int &first, &end;
  __device__ __forceinline__ unsigned int number() const { return blockIdx.x - first; }
  __device__ __forceinline__ unsigned int count() const { return end - first; }
};

// Updates `rows` by `columns` elements, from a row and a column on, of the parameter whose gradients are an entry.
template <class Rule, class T, int CAPACITY>
__device__ __forceinline__ void update_part(
    const TensorTable<LISTS, CAPACITY>& table, int entry, const double* hyperparameters, int maximize, int row0, int column0,
    int rows, int columns, int end_row, int stride) {
  using A = Accumulator<T>;
  constexpr int STATES = Rule::STATES;
  __shared__ double shared_factors[Rule::FACTORS];
  __syncthreads();  // the gradients are stored, and the previous factors are read
  if (threadIdx.x == 0) Rule::prepare(shared_factors, table.template pointer<double>(STEPS, entry), hyperparameters);
  __syncthreads();
  A factors[Rule::FACTORS];
#pragma unroll
  for (int f = 0; f < Rule::FACTORS; f++) factors[f] = A(shared_factors[f]);
  T* const params = table.template pointer<T>(PARAMS, entry);
  const T* const grads = table.template pointer<const T>(GRADS, entry);  // as they are stored, with their rounding
  T* states[STATES];
  int width = access_width(stride, params, grads);
#pragma unroll
  for (int k = 0; k < STATES; k++) {
    states[k] = table.template pointer<T>(FIRST_STATE + k, entry);
    width = min(width, access_width(0, states[k]));
  }
  const int across = columns / 4;
  for (int index = threadIdx.x; index < rows * across; index += blockDim.x) {
    const int row = row0 + index / across, column = column0 + index % across * 4;
    if (row >= end_row || column >= stride) continue;
    const long long start = static_cast<long long>(row) * stride + column;
    update_pack<Rule>(params, states, grads, factors, maximize, start, stride - column, width);
  }
}

template <class T, int ROWS, int COLUMNS, class MATH, class Rule, int CAPACITY>
__global__ void __launch_bounds__(
    TileOf<T, ROWS, COLUMNS, MATH>::THREADS, TileOf<T, ROWS, COLUMNS, MATH>::BLOCKS) linear_backward_weights(
    const __grid_constant__ TensorTable<10, CAPACITY> table, const Accumulator<T>* scale, const double* hyperparameters,
    unsigned int* ticket, const __grid_constant__ WeightProducts<CAPACITY> products, int maximize) {
  using OfWeight = TileOf<T, ROWS, COLUMNS, MATH>;
  using A = Accumulator<T>;
  constexpr int PACK = OfWeight::PACK;
  __shared__ struct Here {  // the mainloop needs the registers
    int weight, first_block, end_block, rows, columns, bias, first_row, first_column;
    T* dw;
  } here;
  if (threadIdx.x == 0) {
    const int weight = table.tensor_of_block();
    here.weight = weight;
    here.first_block = table.first_block[weight];
    here.end_block = table.first_block[weight + 1];
    here.rows = products.of[weight].rows;
    here.columns = products.of[weight].columns;
    here.bias = products.of[weight].bias;
    here.dw = table.template pointer<T>(GRADS, weight);
  }
  __syncthreads();
  auto mean = [&] { return Scaled<T>{{here.columns}, here.dw, scale}; };
  auto compute = [&](const Part& part) {
    const int across = here.columns ? tiles(here.columns, COLUMNS) : 1;
    if (threadIdx.x == 0) {
      here.first_row = part.tile / across * ROWS;
      here.first_column = part.tile % across * COLUMNS;
    }
    LineSums<T, OfWeight, false, LINE_GROUPS<MATH>> of_dy{{}, here.bias >= 0 && part.tile % across == 0};
    const bool is_whole = products.of[here.weight].is_whole;
    const bool is_finished = product<T, OfWeight>(
        part, part.tile, Either<T, PACK>{table.template pointer<T>(DYS, here.weight), here.rows, here.rows, is_whole},
        Either<T, PACK>{table.template pointer<T>(XS, here.weight), here.columns, here.columns, is_whole},
        products.of[here.weight].depth,
        {table.template pointer<A>(PARTIALS, here.weight), table.template pointer<unsigned int>(TICKETS, here.weight)},
        [&](int row, int column, Pack<A, 4>& sums, int valid) { mean()(row, column, sums, valid); }, of_dy);
    if (!is_finished) return;
    if (of_dy.is_needed) {
      T* const db = table.template pointer<T>(GRADS, here.bias);
      of_dy.finish([&](int column, A sum) {
        const int row = here.first_row + column;
        if (row < here.rows) db[row] = T(sum * mean().factor());
      });
    }
    if constexpr (Rule::STATES > 0) {
      update_part<Rule, T>(
          table, here.weight, hyperparameters, maximize, here.first_row, here.first_column, ROWS, COLUMNS, here.rows,
          here.columns);
      if (of_dy.is_needed)
        update_part<Rule, T>(table, here.bias, hyperparameters, maximize, 0, here.first_row, 1, ROWS, 1, here.rows);
    }
  };
  for_each_part<OfWeight>(
      products.of[here.weight].tiles, products.of[here.weight].depth, compute, BlocksOfEntry{here.first_block, here.end_block});
  if constexpr (Rule::STATES > 0) {
    if (!last_block(ticket)) return;
    static_assert(CAPACITY <= OfWeight::THREADS, "a thread for each entry");
    if (threadIdx.x < table.tensors) Rule::advance(table.template pointer<double>(STEPS, threadIdx.x), hyperparameters);
  }
}
