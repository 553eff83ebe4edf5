// The GEMM used by all matrix products: c (rows, columns) = a (rows, depth) b (depth, columns), in plain float32 or float64
// arithmetic.  Halves are widened to float32 on their way to shared memory.
//
// A block of 256 threads computes one TILE x TILE tile of c (TILE 128 or 64), each thread 8 x 8 or 4 x 4 elements of it, in
// steps of 64 bytes of depth (16 floats, 8 doubles).  Shared memory is double-buffered: while one step is computed, the next
// is loaded from global memory through registers into the other half, so there is one barrier per step.
//
// Both operands are described alike: an Operand has `lines` of `depth` elements (the rows of a or the columns of b), with
// any strides.  ALONG_DEPTH: neighbouring threads load along depth (K-major), else across lines; that direction should have
// stride 1.  In shared memory a step is always [depth][line].
//
// Planned: mma.sync for tf32, bf16 and f16 (sm_80+), wgmma with TMA (sm_90a).

#include "common/pack.cuh"

constexpr int GEMM_THREADS = 256;

// Two blocks per SM hide each other's barrier latency; float64 with TILE 128 needs a whole SM's registers.
template <class T, int TILE>
constexpr int GEMM_BLOCKS = sizeof(Accumulator<T>) * TILE > 4 * 128 ? 1 : 2;

__device__ __forceinline__ int tiles(int extent, int tile) { return extent / tile + (extent % tile != 0); }

template <class T, bool ALONG_DEPTH>
struct Operand {
  const T* data;
  int lines;
  long long walk_stride, jump_stride;  // in the direction in which neighbouring threads load, and in the other one
  int width;  // of loads, in elements

  __device__ __forceinline__ Operand(const T* data, int lines, long long line_stride, long long depth_stride)
      : data(data), lines(lines), walk_stride(ALONG_DEPTH ? depth_stride : line_stride),
        jump_stride(ALONG_DEPTH ? line_stride : depth_stride),
        width(walk_stride == 1 ? access_width(jump_stride, data) : 1) {}
};

// One step of one operand, held in registers between global and shared memory.
template <class T, int TILE, bool ALONG_DEPTH>
struct Step {
  using A = Accumulator<T>;
  static constexpr int DEPTH = 64 / sizeof(A);
  static constexpr int PACKS = TILE * DEPTH / (GEMM_THREADS * VECTOR<A>);  // per thread
  static constexpr int ACROSS = (ALONG_DEPTH ? DEPTH : TILE) / VECTOR<A>;  // packs in the direction of loading
  static constexpr int ROWS = GEMM_THREADS / ACROSS;  // rows of packs that the block loads at once

  // Returns the column of a line in shared memory.  With ALONG_DEPTH the columns are permuted differently for each pack of
  // depth, so that a warp's stores use all banks.  Four neighbouring lines stay neighbours, and lines 64 apart stay 64 apart.
  static __device__ __forceinline__ int column(int depth, int line) {
    return ALONG_DEPTH ? line ^ depth / VECTOR<A> % 4 * (32 / static_cast<int>(sizeof(A))) : line;
  }

  Pack<T, VECTOR<A>> packs[PACKS];

  __device__ __forceinline__ void fetch(const Operand<T, ALONG_DEPTH>& operand, int line0, int depth0, int depth_end) {
    const int walk = (ALONG_DEPTH ? depth0 : line0) + threadIdx.x % ACROSS * VECTOR<A>;
    const int jump = (ALONG_DEPTH ? line0 : depth0) + threadIdx.x / ACROSS;
    const int valid = (ALONG_DEPTH ? depth_end : operand.lines) - walk, jumps = ALONG_DEPTH ? operand.lines : depth_end;
    const T* source = operand.data + walk * operand.walk_stride + jump * operand.jump_stride;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const bool inside = jump + p * ROWS < jumps;
      packs[p] = load_stored<VECTOR<A>>(source, inside ? valid : 0, operand.width, operand.walk_stride);
      source += ROWS * operand.jump_stride;
    }
  }

  __device__ __forceinline__ void store(A (&shared)[DEPTH][TILE]) const {
    const int walk = threadIdx.x % ACROSS * VECTOR<A>;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int jump = threadIdx.x / ACROSS + p * ROWS;
      const Pack<A, VECTOR<A>> pack = converted<A>(packs[p]);
      if (ALONG_DEPTH) {
#pragma unroll
        for (int e = 0; e < VECTOR<A>; e++) shared[walk + e][column(walk + e, jump)] = pack.v[e];
      } else {
        store_pack(&shared[jump][walk], pack, VECTOR<A>, VECTOR<A>);
      }
    }
  }
};

// The first row and column of a thread's outputs in the tile.  The outputs are groups of four rows and four columns, 64
// apart.  A warp covers 16 x 32 elements of each group, so that its reads of shared memory are full wavefronts.
__device__ __forceinline__ int first_row() { return (threadIdx.x / 64 * 4 + threadIdx.x % 32 / 8) * 4; }
__device__ __forceinline__ int first_column() { return (threadIdx.x / 32 % 2 * 8 + threadIdx.x % 8) * 4; }

// Callback for each step of a in shared memory; the default does nothing.
struct NoVisit {
  template <class Shared>
  __device__ void operator()(const Shared&) {}
};

// Computes the tile of c at (row0, column0) over depth `depth` to `depth_end`, then calls epilogue(row, column, pack of
// four, valid) for each pack of the tile.  All threads of the block must call it with the same arguments.
template <class T, int TILE, bool A_ALONG_DEPTH, bool B_ALONG_DEPTH, class Epilogue, class Visit = NoVisit>
__device__ __forceinline__ void gemm(
    const Operand<T, A_ALONG_DEPTH>& a, const Operand<T, B_ALONG_DEPTH>& b, int row0, int column0, int depth,
    int depth_end, Epilogue epilogue, Visit visit = {}) {
  using A = Accumulator<T>;
  using StepOfA = Step<T, TILE, A_ALONG_DEPTH>;
  using StepOfB = Step<T, TILE, B_ALONG_DEPTH>;
  constexpr int DEPTH = StepOfA::DEPTH, GROUPS = TILE / 64;
  __shared__ __align__(16) A shared[2][2][DEPTH][TILE];
  auto& a_shared = shared[0];
  auto& b_shared = shared[1];
  A sums[4 * GROUPS][4 * GROUPS] = {};
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
      Pack<A, 4> of_a[GROUPS], of_b[GROUPS];
#pragma unroll
      for (int group = 0; group < GROUPS; group++) {
        of_a[group] = load_pack<4>(&a_shared[half][k][StepOfA::column(k, first_row()) + 64 * group], 4, 4);
        of_b[group] = load_pack<4>(&b_shared[half][k][StepOfB::column(k, first_column()) + 64 * group], 4, 4);
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

  // The sums pass through shared memory again, BAND rows at a time, so that a warp stores whole rows, and so that the
  // epilogue is compiled once and not once per pack of a thread, which would add seconds of compile time.
  constexpr int BAND = 4 * DEPTH, ACROSS = TILE / 4;
  A(&band)[BAND][TILE] = *reinterpret_cast<A(*)[BAND][TILE]>(shared);
#pragma unroll 1
  for (int top = 0; top < TILE; top += BAND) {
#pragma unroll
    for (int i = 0; i < 4 * GROUPS; i++) {
      const int row = first_row() + i % 4 + i / 4 * 64 - top;
      if (row >= 0 && row < BAND) {
#pragma unroll
        for (int group = 0; group < GROUPS; group++) {
          Pack<A, 4> pack;
#pragma unroll
          for (int e = 0; e < 4; e++) pack.v[e] = sums[i][4 * group + e];
          store_pack(&band[row][first_column() + 64 * group], pack, 4, 4);
        }
      }
    }
    __syncthreads();
#pragma unroll 2
    for (int index = threadIdx.x; index < BAND * ACROSS; index += GEMM_THREADS) {
      const int row = row0 + top + index / ACROSS, column = column0 + index % ACROSS * 4;
      Pack<A, 4> pack = load_pack<4>(&band[index / ACROSS][index % ACROSS * 4], 4, 4);
      if (row < a.lines && column < b.lines) epilogue(row, column, pack, b.lines - column);
    }
    __syncthreads();
  }
}
