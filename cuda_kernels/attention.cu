// Scaled dot-product attention without the matrix of scores: for queries q (b, h, n, d), keys k (b, h / group, m, d) and
// values v (b, h / group, m, e),
//
//   s = scale q k^T + bias, -inf where a key is hidden;  p = softmax of the rows of s;  y = p v
//
//   attention_forward        y, and lse = log of the sum of exp(s) over each row
//   attention_delta          delta = sum of dy y over each row, which is the sum of p dp
//   attention_backward       with p = exp(s - lse), dp = dy v^T and ds = p (dp - delta):
//                            dq = scale ds k, dk = scale ds^T q, dv = p^T dy
//
// A block owns 64 rows of the result (queries, or keys in dk and dv) and 64 of its columns.  It goes through the other rows
// in steps of 64 and keeps one tile of scores in shared memory (Dao et al. 2022).  The softmax of a row is scaled again when
// a step has a larger score (Milakov and Gimelshein 2018).  A row whose keys are all hidden gives y = 0, and p = 0 in backward.
//
// All sums are in the order of the other rows, and of the heads of a group: no atomics.  An array is addressed by strides, so
// that the heads of one projection need no copies.
//
// Versions: 1. SIMT tiles; each 64 columns compute their scores again, and so do dq, dk and dv (this one).  Next: 128 columns
// of a block, tensor cores.

#include "common/reduce.cuh"
#include "gemm/simt.cuh"

constexpr int TILE = 64;
template <class T>
using AttentionTile = Tile<T, TILE, TILE>;

// The elements between neighbours along batches, heads and rows.
struct RowStrides {
  long long batch, head, row;

  __device__ __forceinline__ long long head_at(int b, int h) const { return b * batch + h * head; }
  template <class T>
  __device__ __forceinline__ int width(const T* data) const { return access_width(batch | head | row, data); }
};

// Of a mask or a bias, broadcast by strides of 0.
struct MatrixStrides {
  long long batch, head, row, column;
};

struct Attention {
  int batches, heads, group, queries, keys, depth, columns, is_causal;
  double scale;
  RowStrides q, k, v, y, dq, dk, dv, dy;
  MatrixStrides mask, bias;
};

// The scores that a mask hides, and what a bias adds, for one batch and head.
template <class T>
struct Mask {
  const bool* mask;  // null: no key is hidden
  const T* bias;     // null: 0
  const Attention& of;

  __device__ __forceinline__ Mask(const bool* mask, const T* bias, const Attention& of, int b, int h)
      : mask(mask + b * of.mask.batch + h * of.mask.head),  // the strides of an absent array are 0
        bias(bias + b * of.bias.batch + h * of.bias.head),
        of(of) {}

  template <class A>
  __device__ __forceinline__ A score(A product, int query, int key) const {
    bool is_hidden = query >= of.queries || key >= of.keys || (of.is_causal && key > query);
    if (!is_hidden && mask != nullptr) is_hidden = !mask[query * of.mask.row + key * of.mask.column];
    if (is_hidden) return A(-__int_as_float(0x7f800000));  // -infinity
    product *= A(of.scale);
    return bias == nullptr ? product : product + A(bias[query * of.bias.row + key * of.bias.column]);
  }
};

// The rows of one head as an operand whose depth are the columns of a row.
template <class T, bool WHOLE>
using RowSource = Strided<T, true, WHOLE>;
// As an operand whose depth are the rows.
template <class T, bool WHOLE>
using ColumnSource = Strided<T, false, WHOLE>;

// A tile in shared memory as the first operand of a product, which sums over its first dimension.
template <class T>
struct Held {
  using A = Accumulator<T>;
  A v[TILE][TILE];

  // Stores the sums of a thread, transposed: the columns of the tile become the first dimension.
  __device__ __forceinline__ void store(const A (&sums)[8][8]) {
    using Tile = AttentionTile<T>;
#pragma unroll
    for (int j = 0; j < 8; j++)
#pragma unroll
      for (int group = 0; group < 2; group++) {
        Pack<A, 4> pack;
#pragma unroll
        for (int e = 0; e < 4; e++) pack.v[e] = sums[4 * group + e][j];
        store_pack(&v[Tile::first_column() + j % 4 + j / 4 * (TILE / 2)][Tile::first_row() + TILE / 2 * group], pack, 4, 4);
      }
  }

  // Adds this tile, transposed, times rows `from` to `end` of b, columns from `column` on, to sums.
  template <bool WHOLE>
  __device__ __forceinline__ void multiply(
      A (&sums)[8][8], Shared<AttentionTile<T>>& shared, const ColumnSource<T, WHOLE>& b, int column, int from, int end) const {
    using Tile = AttentionTile<T>;
    using StageOfB = Stage<Tile, T, TILE, false>;
    typename ColumnSource<T, WHOLE>::Place places[StageOfB::PACKS];
    StageOfB::prepare(b, places, threadIdx.x, column, from);
    StageOfB stage;
    stage.fetch(b, places, threadIdx.x, from, end);
    stage.store(shared.b[0], threadIdx.x);
    __syncthreads();  // this tile is stored as well
#pragma unroll 1
    for (int depth = 0, half = 0; from + depth < end; depth += Tile::DEPTH, half ^= 1) {
      const bool more = from + depth + Tile::DEPTH < end;
      if (more) stage.fetch(b, places, threadIdx.x, from + depth + Tile::DEPTH, end);
#pragma unroll
      for (int k = 0; k < Tile::DEPTH; k++) {
        Pack<A, 4> of_a[2], of_b[2];
#pragma unroll
        for (int group = 0; group < 2; group++) {
          of_a[group] = load_pack<4>(&v[depth + k][Tile::first_row() + TILE / 2 * group], 4, 4);
          of_b[group] = load_pack<4>(&shared.b[half][k][Tile::first_column() + TILE / 2 * group], 4, 4);
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
          for (int j = 0; j < 8; j++) sums[i][j] += of_a[i / 4].v[i % 4] * of_b[j / 4].v[j % 4];
      }
      if (more) stage.store(shared.b[half ^ 1], threadIdx.x);
      __syncthreads();
    }
  }
};

struct Nothing {
  template <class Step>
  __device__ void operator()(const Step&) {}
};

// sums = the products of 64 rows of a from `row` on with 64 of b from `other` on.
template <class T, bool WHOLE>
__device__ __forceinline__ void multiply_rows(
    Accumulator<T> (&sums)[8][8], Shared<AttentionTile<T>>& shared, const RowSource<T, WHOLE>& a, const RowSource<T, WHOLE>& b,
    int row, int other, int depth) {
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int j = 0; j < 8; j++) sums[i][j] = 0;
  Nothing nothing;
  multiply<T, AttentionTile<T>>(sums, shared, a, b, row, other, 0, depth, nothing);
}

// The row or column of a thread's i-th sum in the tile.
template <class T>
__device__ __forceinline__ int row_of(int i) { return AttentionTile<T>::first_row() + i % 4 + i / 4 * (TILE / 2); }
template <class T>
__device__ __forceinline__ int column_of(int j) { return AttentionTile<T>::first_column() + j % 4 + j / 4 * (TILE / 2); }

// Returns the result of the eight lanes that share the rows of a tile (see Tile::first_row).
template <class Operation, class A>
__device__ __forceinline__ A reduce_row(A value) {
#pragma unroll
  for (int bit = 0; bit < 4; bit++)
    if (bit != 1) value = Operation::combine(value, __shfl_xor_sync(0xffffffffu, value, 1 << bit));
  return value;
}

// Stores sums of a thread, row i times factor(i), to rows of `columns` elements; those outside of the result are left out.
template <class T, class Factor>
__device__ __forceinline__ void store_rows(
    T* result, const Accumulator<T> (&sums)[8][8], int row0, int rows, int column0, int columns, long long stride, int width,
    Factor factor) {
  using A = Accumulator<T>;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const int row = row0 + row_of<T>(i);
    const A by = factor(i);
#pragma unroll
    for (int group = 0; group < 2; group++) {
      const int column = column0 + column_of<T>(4 * group);
      Pack<A, 4> pack;
#pragma unroll
      for (int e = 0; e < 4; e++) pack.v[e] = sums[i][4 * group + e] * by;
      if (row < rows && column < columns) store_pack(result + row * stride + column, pack, columns - column, width);
    }
  }
}

// What a block computes: 64 rows from `row` on and 64 columns from `column` on, of a head of a batch.
struct Place {
  int row, column, head, batch;

  __device__ __forceinline__ Place(int block, int rows, int columns, int heads) {
    const int tiles = (rows + TILE - 1) / TILE, across = (columns + TILE - 1) / TILE;
    row = block % tiles * TILE;
    block /= tiles;
    column = block % across * TILE;
    block /= across;
    head = block % heads;
    batch = block / heads;
  }
};

template <class T, bool WHOLE>
__global__ void __launch_bounds__(64) attention_forward(
    T* y, Accumulator<T>* lse, const T* q, const T* k, const T* v, const bool* mask, const T* bias, const Attention of) {
  using A = Accumulator<T>;
  __shared__ __align__(16) Shared<AttentionTile<T>> shared;
  __shared__ __align__(16) Held<T> held;
  const Place place(blockIdx.x, of.queries, of.columns, of.heads);
  const int of_keys = place.head / of.group;
  const RowSource<T, WHOLE> queries(q + of.q.head_at(place.batch, place.head), of.queries, of.q.row, 1);
  const RowSource<T, WHOLE> keys(k + of.k.head_at(place.batch, of_keys), of.keys, of.k.row, 1);
  const ColumnSource<T, WHOLE> values(v + of.v.head_at(place.batch, of_keys), of.columns, 1, of.v.row);
  const Mask<T> masked(mask, bias, of, place.batch, place.head);

  A result[8][8] = {}, sums[8][8], largest[8], total[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    largest[i] = LOWEST<A>;  // finite, so that exp(-infinity - LOWEST) is 0 where all keys are hidden
    total[i] = 0;
  }
  const int end = of.is_causal ? min(of.keys, place.row + TILE) : of.keys;
#pragma unroll 1
  for (int key = 0; key < end; key += TILE) {
    multiply_rows<T, WHOLE>(sums, shared, queries, keys, place.row, key, of.depth);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      A top = largest[i];
#pragma unroll
      for (int j = 0; j < 8; j++) {
        sums[i][j] = masked.score(sums[i][j], place.row + row_of<T>(i), key + column_of<T>(j));
        top = Maximum::combine(top, sums[i][j]);
      }
      top = reduce_row<Maximum>(top);
      const A again = exp(largest[i] - top);
      largest[i] = top;
      A of_tile = 0;
#pragma unroll
      for (int j = 0; j < 8; j++) {
        sums[i][j] = exp(sums[i][j] - top);
        of_tile += sums[i][j];
        result[i][j] *= again;
      }
      total[i] = total[i] * again + reduce_row<Sum>(of_tile);
    }
    held.store(sums);
    held.template multiply<WHOLE>(result, shared, values, place.column, key, min(key + TILE, end));
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (!(total[i] < A(1))) continue;  // at least 1, or NaN
    largest[i] = A(0);  // all keys are hidden
    total[i] = A(1);
  }
  T* to = y + of.y.head_at(place.batch, place.head);
  store_rows(to, result, place.row, of.queries, place.column, of.columns, of.y.row, of.y.width(y),
             [&](int i) { return A(1) / total[i]; });
  if (place.column == 0 && AttentionTile<T>::first_column() == 0) {
    A* rows = lse + (static_cast<long long>(place.batch) * of.heads + place.head) * of.queries;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int row = place.row + row_of<T>(i);
      if (row < of.queries) rows[row] = largest[i] + log(total[i]);
    }
  }
}

// One warp per row.
template <class T>
__global__ void __launch_bounds__(256) attention_delta(Accumulator<T>* delta, const T* dy, const T* y, const Attention of) {
  using A = Accumulator<T>;
  const long long rows = static_cast<long long>(of.batches) * of.heads * of.queries;
  const int width = min(of.dy.width(dy), of.y.width(y)), lane = threadIdx.x % 32;
  for (long long row = blockIdx.x * 8LL + threadIdx.x / 32; row < rows; row += gridDim.x * 8LL) {
    const long long head = row / of.queries;
    const int b = static_cast<int>(head / of.heads), h = static_cast<int>(head % of.heads);
    const int query = static_cast<int>(row % of.queries);
    const T* gradients = dy + of.dy.head_at(b, h) + query * of.dy.row;
    const T* results = y + of.y.head_at(b, h) + query * of.y.row;
    A sum = 0;
    for (int column = 4 * lane; column < of.columns; column += 128) {
      const Pack<A, 4> gradient = load_pack<4>(gradients + column, of.columns - column, width);
      const Pack<A, 4> result = load_pack<4>(results + column, of.columns - column, width);
#pragma unroll
      for (int e = 0; e < 4; e++) sum += gradient.v[e] * result.v[e];
    }
    sum = warp_reduce<Sum>(sum);
    if (lane == 0) delta[row] = sum;
  }
}

// The blocks of dq, then those of dk, then those of dv.
template <class T, bool WHOLE>
__global__ void __launch_bounds__(64) attention_backward(
    T* dq, T* dk, T* dv, const T* dy, const Accumulator<T>* lse, const Accumulator<T>* delta, const T* q, const T* k,
    const T* v, const bool* mask, const T* bias, const Attention of, int blocks_of_q, int blocks_of_k) {
  using A = Accumulator<T>;
  using Rows = RowSource<T, WHOLE>;
  __shared__ __align__(16) Shared<AttentionTile<T>> shared;
  __shared__ __align__(16) Held<T> held;
  const int block = blockIdx.x;
  const bool of_queries = block < blocks_of_q, of_values = block >= blocks_of_q + blocks_of_k;
  const int own_rows = of_queries ? of.queries : of.keys, other_rows = of_queries ? of.keys : of.queries;
  const int columns = of_values ? of.columns : of.depth;
  const int first = of_queries ? 0 : of_values ? blocks_of_q + blocks_of_k : blocks_of_q;
  const Place place(block - first, own_rows, columns, of_queries ? of.heads : of.heads / of.group);

  A result[8][8] = {}, sums[8][8];
  const int begin = of.is_causal && !of_queries ? place.row : 0;
  const int end = of.is_causal && of_queries ? min(of.keys, place.row + TILE) : other_rows;
#pragma unroll 1
  for (int member = 0; member < (of_queries ? 1 : of.group); member++) {
    const int head = of_queries ? place.head : place.head * of.group + member;
    const int key_head = of_queries ? place.head / of.group : place.head;
    const T* of_q = q + of.q.head_at(place.batch, head);
    const T* of_k = k + of.k.head_at(place.batch, key_head);
    const T* of_v = v + of.v.head_at(place.batch, key_head);
    const T* of_dy = dy + of.dy.head_at(place.batch, head);
    const Rows own(of_queries ? of_q : of_k, own_rows, of_queries ? of.q.row : of.k.row, 1);
    const Rows others(of_queries ? of_k : of_q, other_rows, of_queries ? of.k.row : of.q.row, 1);
    const Rows own_pair(of_queries ? of_dy : of_v, own_rows, of_queries ? of.dy.row : of.v.row, 1);
    const Rows other_pair(of_queries ? of_v : of_dy, other_rows, of_queries ? of.v.row : of.dy.row, 1);
    const ColumnSource<T, WHOLE> factors(
        of_values ? of_dy : others.data, columns, 1, of_values ? of.dy.row : others.line_stride);
    const Mask<T> masked(mask, bias, of, place.batch, head);
    const long long rows = (static_cast<long long>(place.batch) * of.heads + head) * of.queries;
#pragma unroll 1
    for (int other = begin; other < end; other += TILE) {
      auto query_of = [&](int i, int j) {
        return of_queries ? place.row + row_of<T>(i) : other + column_of<T>(j);
      };
      multiply_rows<T, WHOLE>(sums, shared, own, others, place.row, other, of.depth);
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int query = query_of(i, j), key = of_queries ? other + column_of<T>(j) : place.row + row_of<T>(i);
          const A score = masked.score(sums[i][j], query, key);
          sums[i][j] = query < of.queries ? exp(score - lse[rows + query]) : A(0);
        }
      held.store(sums);
      if (!of_values) {
        multiply_rows<T, WHOLE>(sums, shared, own_pair, other_pair, place.row, other, of.columns);
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
          for (int j = 0; j < 8; j++) {
            const int query = query_of(i, j);
            const A difference = query < of.queries ? sums[i][j] - delta[rows + query] : A(0);
            sums[i][j] = held.v[column_of<T>(j)][row_of<T>(i)] * difference;  // what this thread stored
          }
        held.store(sums);
      }
      held.template multiply<WHOLE>(result, shared, factors, place.column, other, min(other + TILE, end));
    }
  }
  T* to = of_queries ? dq : of_values ? dv : dk;
  const RowStrides strides = of_queries ? of.dq : of_values ? of.dv : of.dk;
  const A scale = of_values ? A(1) : A(of.scale);
  store_rows(to + strides.head_at(place.batch, place.head), result, place.row, own_rows, place.column, columns, strides.row,
             strides.width(to), [&](int) { return scale; });
}
