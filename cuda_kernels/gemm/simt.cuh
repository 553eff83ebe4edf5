// The GEMM that every product of ours runs on: c (rows, columns) = sum over depth of a (rows, depth) b (depth, columns),
// in plain float32 or float64 arithmetic.
//
// A block of 256 threads makes one TILE x TILE tile of c, TILE 128 or 64, each thread 8 x 8 or 4 x 4 of it, in steps of
// 64 bytes of depth (16 floats, 8 doubles).  While one step is computed from shared memory, the next is on its way
// from global memory through registers into the other half: one barrier a step.
//
// Both operands look alike from here: an Operand is `lines` of `depth` elements, the rows of a or the columns of b, of
// any strides.  ALONG_DEPTH says which way neighbouring threads walk it in global memory; that way should have stride 1.
// In shared memory a step is always [depth][line].
//
// Versions: 1. this one.  Next: mma.sync for tf32, bf16 and f16 (sm_80+), wgmma with TMA (sm_90a).

#include "common/pack.cuh"

constexpr int GEMM_THREADS = 256;

// Blocks that a processor must have registers for: two hide each other's barriers, but float64 needs all for one.
template <class T, int TILE>
constexpr int GEMM_BLOCKS = sizeof(T) * TILE > 4 * 128 ? 1 : 2;

__device__ __forceinline__ int tiles(int extent, int tile) { return extent / tile + (extent % tile != 0); }

template <class T, bool ALONG_DEPTH>
struct Operand {
  const T* data;
  int lines;
  long long walk_stride, jump_stride;  // in the direction that neighbouring threads walk, and in the other
  bool whole;  // whether 16 bytes at a time may be loaded

  __device__ __forceinline__ Operand(const T* data, int lines, long long line_stride, long long depth_stride)
      : data(data), lines(lines), walk_stride(ALONG_DEPTH ? depth_stride : line_stride),
        jump_stride(ALONG_DEPTH ? line_stride : depth_stride),
        whole(walk_stride == 1 && jump_stride % VECTOR<T> == 0 && aligned(data)) {}
};

// One step of one operand, on its way from global to shared memory.
template <class T, int TILE, bool ALONG_DEPTH>
struct Step {
  static constexpr int DEPTH = 64 / sizeof(T);
  static constexpr int PACKS = TILE * DEPTH / (GEMM_THREADS * VECTOR<T>);  // a thread
  static constexpr int ACROSS = (ALONG_DEPTH ? DEPTH : TILE) / VECTOR<T>;  // packs in the walking direction
  static constexpr int ROWS = GEMM_THREADS / ACROSS;  // of packs that the block moves at once

  // The column in shared memory of a line.  Who stores along the depth finds the lines of different packs of depth turned
  // against each other, so that a warp meets all banks.  Four neighbouring lines stay neighbours, and 64 apart 64 apart.
  static __device__ __forceinline__ int column(int depth, int line) {
    return ALONG_DEPTH ? line ^ depth / VECTOR<T> % 4 * (32 / static_cast<int>(sizeof(T))) : line;
  }

  Pack<T, VECTOR<T>> packs[PACKS];

  __device__ __forceinline__ void fetch(const Operand<T, ALONG_DEPTH>& operand, int line0, int depth0, int depth_end) {
    const int walk = (ALONG_DEPTH ? depth0 : line0) + threadIdx.x % ACROSS * VECTOR<T>;
    const int jump = (ALONG_DEPTH ? line0 : depth0) + threadIdx.x / ACROSS;
    const int valid = (ALONG_DEPTH ? depth_end : operand.lines) - walk, jumps = ALONG_DEPTH ? operand.lines : depth_end;
    const T* source = operand.data + walk * operand.walk_stride + jump * operand.jump_stride;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const bool inside = jump + p * ROWS < jumps;
      packs[p] = load_pack<VECTOR<T>>(source, inside ? valid : 0, operand.whole, operand.walk_stride);
      source += ROWS * operand.jump_stride;
    }
  }

  __device__ __forceinline__ void store(T (&shared)[DEPTH][TILE]) const {
    const int walk = threadIdx.x % ACROSS * VECTOR<T>;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int jump = threadIdx.x / ACROSS + p * ROWS;
      if (ALONG_DEPTH) {
#pragma unroll
        for (int e = 0; e < VECTOR<T>; e++) shared[walk + e][column(walk + e, jump)] = packs[p].v[e];
      } else {
        store_pack(&shared[jump][walk], packs[p], VECTOR<T>, true);
      }
    }
  }
};

// Where a thread's outputs lie in its tile: groups of four rows and four columns, 64 apart.  A warp covers 16 rows by
// 32 columns of each group, so that its reads of shared memory are whole wavefronts.
__device__ __forceinline__ int first_row() { return (threadIdx.x / 64 * 4 + threadIdx.x % 32 / 8) * 4; }
__device__ __forceinline__ int first_column() { return (threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8) * 4; }

// What a GEMM may do with each step of a beside multiplying it: nothing, by default.
struct NoVisit {
  template <class Shared>
  __device__ void operator()(const Shared&) {}
};

// The tile of c at (row0, column0), its depth from `depth` to `depth_end`.  All threads of the block call it, with the
// same arguments, and then epilogue(row, column, pack of four, valid) is called for each piece of c.
template <class T, int TILE, bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class Epilogue, class Visit = NoVisit>
__device__ __forceinline__ void gemm(
    const Operand<T, A_ALONG_DEPTH>& a, const Operand<T, B_ALONG_DEPTH>& b, int row0, int column0, int depth,
    int depth_end, Epilogue epilogue, Visit visit = {}) {
  using StepOfA = Step<T, TILE, A_ALONG_DEPTH>;
  using StepOfB = Step<T, TILE, B_ALONG_DEPTH>;
  constexpr int DEPTH = StepOfA::DEPTH, GROUPS = TILE / 64;
  __shared__ __align__(16) T shared[2][2][DEPTH][TILE];
  auto& a_shared = shared[0];
  auto& b_shared = shared[1];
  T sums[4 * GROUPS][4 * GROUPS] = {};
  StepOfA a_step;
  StepOfB b_step;

  if (depth < depth_end) {
    a_step.fetch(a, row0, depth, depth_end);
    b_step.fetch(b, column0, depth, depth_end);
    a_step.store(a_shared[0]);
    b_step.store(b_shared[0]);
  }
  __syncthreads();
  for (int half = 0; depth < depth_end; half ^= 1) {
    depth += DEPTH;
    const bool more = depth < depth_end;
    if (more) {
      a_step.fetch(a, row0, depth, depth_end);
      b_step.fetch(b, column0, depth, depth_end);
    }
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      Pack<T, 4> of_a[GROUPS], of_b[GROUPS];
#pragma unroll
      for (int group = 0; group < GROUPS; group++) {
        of_a[group] = load_pack<4>(&a_shared[half][k][StepOfA::column(k, first_row()) + 64 * group], 4, true);
        of_b[group] = load_pack<4>(&b_shared[half][k][StepOfB::column(k, first_column()) + 64 * group], 4, true);
      }
#pragma unroll
      for (int i = 0; i < 4 * GROUPS; i++)
#pragma unroll
        for (int j = 0; j < 4 * GROUPS; j++) sums[i][j] += of_a[i / 4].v[i % 4] * of_b[j / 4].v[j % 4];
    }
    visit(a_shared[half]);
    if (more) {
      a_step.store(a_shared[half ^ 1]);
      b_step.store(b_shared[half ^ 1]);
    }
    __syncthreads();
  }

  // The sums pass through shared memory once more, BAND rows at a time: then a warp stores whole rows, and the epilogue's
  // code is there once and not for each piece of a thread, which would take the compiler seconds.
  constexpr int BAND = 4 * DEPTH, ACROSS = TILE / 4;
  T(&band)[BAND][TILE] = *reinterpret_cast<T(*)[BAND][TILE]>(shared);
#pragma unroll 1
  for (int top = 0; top < TILE; top += BAND) {
#pragma unroll
    for (int i = 0; i < 4 * GROUPS; i++) {
      const int row = first_row() + i % 4 + i / 4 * 64 - top;
      if (row >= 0 && row < BAND) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
          Pack<T, 4> pack;
#pragma unroll
          for (int e = 0; e < 4; e++) pack.v[e] = sums[i][4 * group + e];
          store_pack(&band[row][first_column() + 64 * group], pack, 4, true);
        }
      }
    }
    __syncthreads();
#pragma unroll 2
    for (int index = threadIdx.x; index < BAND * ACROSS; index += GEMM_THREADS) {
      const int row = row0 + top + index / ACROSS, column = column0 + index % ACROSS * 4;
      Pack<T, 4> pack = load_pack<4>(&band[index / ACROSS][index % ACROSS * 4], 4, true);
      if (row < a.lines && column < b.lines) epilogue(row, column, pack, b.lines - column);
    }
    __syncthreads();
  }
}
