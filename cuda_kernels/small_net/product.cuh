// Products of matrices in shared memory, by a whole block.

#include "memory.cuh"

// Four steps of depth of LINES lines of an operand in shared memory.  ALONG_DEPTH: a line is a row, of which a pack is read at
// once, and the lines of a thread begin at `places`.  Else a row has one depth, and a thread's lines are neighbours in it.
template <class T, int LINES, bool ALONG_DEPTH>
struct Lines {
  T at[4][LINES];

  // Of depth from `valid` on, the elements are zero, or along depth whatever the row has there.
  __device__ __forceinline__ void load(const T* from, const int (&places)[LINES], int stride, int depth, int valid) {
    if constexpr (ALONG_DEPTH) {
#pragma unroll
      for (int line = 0; line < LINES; line++) {
        const Pack<T, 4> pack = load_pack<4>(from + places[line] + depth, 4, 4);
#pragma unroll
        for (int k = 0; k < 4; k++) at[k][line] = pack.v[k];
      }
    } else {
      constexpr int WIDTH = LINES < 4 ? LINES : 4;
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int line = 0; line < LINES; line += WIDTH) {
          Pack<T, WIDTH> pack = {};
          if (k < valid) pack = load_pack<WIDTH>(from + places[0] + (depth + k) * stride + line, WIDTH, WIDTH);
#pragma unroll
          for (int e = 0; e < WIDTH; e++) at[k][line + e] = pack.v[e];
        }
    }
  }
};

// Adds the products of four steps of depth.
template <class T, int ROWS, bool A_ALONG, bool B_ALONG>
__device__ __forceinline__ void accumulate(
    T (&sums)[ROWS][4], const T* a, const int (&rows)[ROWS], int a_stride, const T* b, const int (&columns)[4], int b_stride,
    int depth, int valid) {
  Lines<T, ROWS, A_ALONG> of_a;
  Lines<T, 4, B_ALONG> of_b;
  of_a.load(a, rows, a_stride, depth, valid);
  of_b.load(b, columns, b_stride, depth, valid);
#pragma unroll
  for (int k = 0; k < 4; k++)
#pragma unroll
    for (int i = 0; i < ROWS; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) sums[i][j] += of_a.at[k][i] * of_b.at[k][j];
}

// c = a b for c (rows, columns).  Calls store(row, column, pack of four columns) or, if b lies along depth, store(row, column,
// sum).  Each thread computes tiles of ROWS x 4 elements: neighbours of operands across depth, else those in the same place of
// equal parts, so that lanes read neighbouring rows.  `lanes` neighbouring lanes share the depth of a tile.
template <class T, int ROWS, bool A_ALONG, bool B_ALONG, class Store>
__device__ __forceinline__ void product_in_tiles(
    const T* a, int a_stride, const T* b, int b_stride, int num_rows, int num_columns, int depth, int lanes, Store store) {
  const int down = (num_rows + ROWS - 1) / ROWS, across = (num_columns + 3) / 4;
  const int slice = threadIdx.x % lanes;
#pragma unroll 1
  for (int tile = threadIdx.x / lanes; tile < down * across; tile += THREADS / lanes) {
    const int tile_row = tile / across, tile_column = tile % across;
    int rows[ROWS], columns[4];  // the first element of a line
#pragma unroll
    for (int i = 0; i < ROWS; i++)
      rows[i] = A_ALONG ? min(tile_row + i * down, num_rows - 1) * a_stride : tile_row * ROWS;
#pragma unroll
    for (int j = 0; j < 4; j++)
      columns[j] = B_ALONG ? min(tile_column + j * across, num_columns - 1) * b_stride : tile_column * 4;
    T sums[ROWS][4] = {};
#pragma unroll 1
    for (int k = 4 * slice; k < depth; k += 4 * lanes)
      accumulate<T, ROWS, A_ALONG, B_ALONG>(sums, a, rows, a_stride, b, columns, b_stride, k, depth - k);
#pragma unroll 1
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
      const unsigned int mask = (0xffffffffu >> (32 - lanes)) << (threadIdx.x % 32 - slice);
#pragma unroll
      for (int i = 0; i < ROWS; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] += __shfl_xor_sync(mask, sums[i][j], distance);
    }
    if (slice > 0) continue;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int row = A_ALONG ? tile_row + i * down : tile_row * ROWS + i;
      if (row >= num_rows) break;
      if constexpr (B_ALONG) {
#pragma unroll
        for (int j = 0; j < 4; j++)
          if (tile_column + j * across < num_columns) store(row, tile_column + j * across, sums[i][j]);
      } else {
        Pack<T, 4> four;
#pragma unroll
        for (int j = 0; j < 4; j++) four.v[j] = sums[i][j];
        store(row, tile_column * 4, four);
      }
    }
  }
}

// The same in tiles of 8 x 4 if `lanes` is 0, else in tiles of 2 x 4.
template <class T, bool A_ALONG, bool B_ALONG, class Store>
__device__ __forceinline__ void product(
    const T* a, int a_stride, const T* b, int b_stride, int num_rows, int num_columns, int depth, int lanes, Store store) {
  if (lanes == 0)
    product_in_tiles<T, 8, A_ALONG, B_ALONG>(a, a_stride, b, b_stride, num_rows, num_columns, depth, 1, store);
  else
    product_in_tiles<T, 2, A_ALONG, B_ALONG>(a, a_stride, b, b_stride, num_rows, num_columns, depth, lanes, store);
}
