// Mainloop of products on tensor cores (mma.sync): halves as they are, float32 rounded to TF32, both accumulated in float32.
//
// A block of four warps computes one tile of c = a b, each warp a quarter of it, in steps of 64 bytes of depth: 32 halves or 16
// float32.  A ring of STAGES steps in shared memory is filled by asynchronous copies, STAGES - 1 steps ahead, so there is one
// barrier per step.  Sources whose packs are not WHOLE, and sm_75, copy through registers.
//
//   tile        elements of a warp   for
//   128 x 128   64 x 64              products that fill a GPU with such tiles
//   64 x 64     32 x 32              smaller ones
//
// TERMS: 1, or 3 for float32 as the sum of two TF32 numbers, big and small; big big, big small and small big are added, which
// leaves out small small, 2^-22 of the product.
//
// float16 needs sm_75, all others sm_80: the host launches other kernels before (gpunet/ops/gemm.py).

#include "common/primitives.cuh"
#include "source.cuh"

// Adds the products of fragments of 32 bytes of depth to d (see primitives.cuh for their layouts).
__device__ __forceinline__ void mma(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2], float16) {
  if constexpr (IS_SM_80) {
    mma_m16n8k16_f16(d, a, b);
  } else {
#pragma unroll
    for (int half = 0; half < 2; half++) mma_m16n8k8_f16(d, {a[2 * half], a[2 * half + 1]}, {b[half]});
  }
}
__device__ __forceinline__ void mma(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2], bfloat16) {
  if constexpr (IS_SM_80) mma_m16n8k16_bf16(d, a, b);
}
__device__ __forceinline__ void mma(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2], float) {
  if constexpr (IS_SM_80) mma_m16n8k8_tf32(d, a, b);
}

// One step of an operand in shared memory, in chunks of 16 bytes.  ALONG_DEPTH: a row is a line, 64 bytes of depth; else a row
// is a depth, and lies across the lines.  Chunks are permuted in each row, so that the eight rows of an ldmatrix, the lanes of a
// load, and neighbouring threads of a copy use all banks.
template <class Tile, class T, int LINES, bool ALONG_DEPTH>
struct Chunks {
  static constexpr bool IS_HALF = sizeof(T) == 2;
  static constexpr int PACK = Tile::PACK, BYTES = LINES * Tile::STEP_BYTES;
  static constexpr int ACROSS = (ALONG_DEPTH ? Tile::DEPTH : LINES) / PACK;  // of a row
  static constexpr int COPIES = BYTES / 16 / Tile::THREADS;                  // per thread and step
  static constexpr int ROWS = Tile::THREADS / ACROSS;                        // that the block copies at once
  static constexpr int OF_WARP = LINES / 2;                                  // lines
  // Fragments of float32 across lines are read in packs of four lines, for which a warp's lines are permuted.
  static constexpr bool IS_PERMUTED = !ALONG_DEPTH && !IS_HALF;

  // The byte at which a chunk lies.
  static __device__ __forceinline__ int place(int row, int chunk) {
    const int by = ALONG_DEPTH ? row / 2 % 4 : IS_HALF ? row % 8 : row % 4 * 2;
    return (row * ACROSS + (chunk ^ by)) * 16;
  }

  // The row and the chunk of a thread's copy.  Those of its other copies are multiples of ROWS below, at the same permutation.
  static __device__ __forceinline__ int row_of(int thread) { return thread / ACROSS; }
  static __device__ __forceinline__ int chunk_of(int thread) { return thread % ACROSS; }

  template <class Source>
  static __device__ __forceinline__ void prepare(
      const Source& source, typename Source::Place (&places)[COPIES], int thread, int line, int depth) {
#pragma unroll
    for (int p = 0; p < COPIES; p++) {
      const int row = row_of(thread) + p * ROWS, at = chunk_of(thread) * PACK;
      places[p] = ALONG_DEPTH ? source.prepare(line + row, depth + at) : source.prepare(line + at, depth + row);
    }
  }

  // Copies the step at `depth` to shared memory, and moves the places to the next one.
  template <class Source>
  static __device__ __forceinline__ void copy(
      unsigned char* step, const Source& source, typename Source::Place (&places)[COPIES], int thread, int depth, int end) {
#pragma unroll
    for (int p = 0; p < COPIES; p++) {
      const int at = depth + (ALONG_DEPTH ? chunk_of(thread) * PACK : row_of(thread) + p * ROWS);
      unsigned char* to = step + place(row_of(thread), chunk_of(thread)) + p * ROWS * ACROSS * 16;
      if constexpr (Source::IS_WHOLE && IS_SM_80) {
        cp_async_cg(to, source.address(places[p], at), at < end ? 16 : 0);
      } else {
        *reinterpret_cast<Pack<T, PACK>*>(to) = source.template load<PACK>(places[p], at, end);
      }
      source.advance(places[p], Tile::DEPTH);
    }
  }

  // Four elements of neighbouring lines at one depth.  Not ALONG_DEPTH.
  static __device__ __forceinline__ Pack<float, 4> four_lines(const unsigned char* step, int depth, int line) {
    return load_pack<4>(reinterpret_cast<const T*>(step + place(depth, line / PACK)) + line % PACK, 4, 4);
  }

  // The line of a warp that is row (a) or column (b) `group` of its 8-line matrix `number` of fragments.
  static __device__ __forceinline__ int line_of(int number, int group) {
    return IS_PERMUTED ? number / 4 * 32 + group * 4 + number % 4 : number * 8 + group;
  }

  // Loads the fragments of all lines of a warp at one of the two halves of a step's depth: r[n][q] is quarter 2 half + q of the
  // depth of 8-line matrix n.
  static __device__ __forceinline__ void load(unsigned int (&r)[OF_WARP / 8][2], const unsigned char* step, int line, int half) {
    const int lane = threadIdx.x % 32;
    if constexpr (IS_PERMUTED) {
#pragma unroll
      for (int q = 0; q < 2; q++)
#pragma unroll
        for (int n = 0; n < OF_WARP / 8; n += 4) {
          const int chunk = (line + line_of(n, lane / 4)) / 4;
          const uint4 four = *reinterpret_cast<const uint4*>(step + place(half * 8 + q * 4 + lane % 4, chunk));
          r[n][q] = four.x;
          r[n + 1][q] = four.y;
          r[n + 2][q] = four.z;
          r[n + 3][q] = four.w;
        }
    } else {
#pragma unroll
      for (int n = 0; n < OF_WARP / 8; n += 2) {  // lanes 8 i to 8 i + 7: rows of matrix n + i / 2 at quarter i % 2
        const int in_matrix = lane % 8, quarter = half * 2 + lane / 8 % 2, at = line + n * 8 + lane / 16 * 8;
        unsigned int four[4];
        if constexpr (ALONG_DEPTH) {
          ldmatrix(four, step + place(at + in_matrix, quarter));
        } else {
          ldmatrix_trans(four, step + place(quarter * 8 + in_matrix, at / 8));
        }
#pragma unroll
        for (int i = 0; i < 4; i++) r[n + i / 2][i % 2] = four[i];
      }
    }
  }
};

template <class T, int ROWS_, int COLUMNS_, int TERMS>
struct MmaTile {
  using A = float;
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, THREADS = 128, STAGES = 3, STEP_BYTES = 64;
  static constexpr int DEPTH = STEP_BYTES / sizeof(T);  // of a step
  static constexpr int PACK = 16 / sizeof(T);           // elements that are copied at once
  static constexpr int BLOCKS = ROWS == 128 ? 2 : 4;    // per multiprocessor: 255 and 128 registers per thread
  static constexpr int BYTES = (ROWS + COLUMNS) * STEP_BYTES, SHARED_BYTES = STAGES * BYTES;

  static constexpr int DOWN = ROWS / 32, ACROSS = COLUMNS / 16;  // of a warp, in sums of 16 x 8
  using Sums = float[DOWN][ACROSS][4];
  static constexpr int PACKS = DOWN * ACROSS;  // of a thread

  static __device__ __forceinline__ unsigned char* memory() {
    extern __shared__ __align__(128) unsigned char mma_steps[];
    return mma_steps;
  }

  static __device__ __forceinline__ Pack<float, 4>& pack(Sums& sums, int p) {
    return *reinterpret_cast<Pack<float, 4>*>(sums[p / ACROSS][p % ACROSS]);
  }

  static __device__ __forceinline__ int first_line() { return threadIdx.x / 64 * (ROWS / 2); }          // of a, of the warp
  static __device__ __forceinline__ int first_column() { return threadIdx.x / 32 % 2 * (COLUMNS / 2); }

  // Four columns of row r at column c of the tile lie at band_place(r, c) in a row of shared memory, so that the lanes that
  // store sums use all banks.
  static __device__ __forceinline__ int band_place(int row, int column) {
    const int by = (row ^ row / 4) % 4;
    return column ^ (by / 2 * 16 + by % 2 * 12);
  }

  // Calls visit(row, column, sums) for the thread's sums, in packs of neighbouring columns.
  template <class OfA, class OfB, class Visit>
  static __device__ __forceinline__ void for_each_pack(const Sums& sums, Visit visit) {
    const int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < DOWN; i++)
#pragma unroll
      for (int low = 0; low < 2; low++) {
        const int row = first_line() + OfA::line_of(2 * i + low, group);
        if constexpr (OfB::IS_PERMUTED) {
#pragma unroll
          for (int j = 0; j < ACROSS; j += 4)
#pragma unroll
            for (int e = 0; e < 2; e++) {
              Pack<float, 4> four;
#pragma unroll
              for (int of = 0; of < 4; of++) four.v[of] = sums[i][j + of][2 * low + e];
              visit(row, first_column() + OfB::line_of(j, 2 * member + e), four);
            }
        } else {
#pragma unroll
          for (int j = 0; j < ACROSS; j++)
            visit(row, first_column() + 8 * j + 2 * member, Pack<float, 2>{{sums[i][j][2 * low], sums[i][j][2 * low + 1]}});
        }
      }
  }

  template <class SourceOfA>
  using OfA = Chunks<MmaTile, T, ROWS, SourceOfA::ALONG_DEPTH>;
  template <class SourceOfB>
  using OfB = Chunks<MmaTile, T, COLUMNS, SourceOfB::ALONG_DEPTH>;

  // Adds the products of the fragments of half a step.
  static __device__ __forceinline__ void add(Sums& sums, unsigned int (&a)[2 * DOWN][2], unsigned int (&b)[ACROSS][2]) {
    if constexpr (sizeof(T) == 2) {
      add_products(sums, a, b);
    } else if constexpr (TERMS == 1) {
      round(a);
      round(b);
      add_products(sums, a, b);
    } else {
      unsigned int small_a[2 * DOWN][2], small_b[ACROSS][2];
      split(a, small_a);
      split(b, small_b);
      add_products(sums, small_a, b);
      add_products(sums, a, small_b);
      add_products(sums, a, b);
    }
  }

  template <int N>
  static __device__ __forceinline__ void round(unsigned int (&r)[N][2]) {
#pragma unroll
    for (int n = 0; n < 2 * N; n++) r[n / 2][n % 2] = to_tf32(__uint_as_float(r[n / 2][n % 2]));
  }

  // r = big + small, up to 2^-22 of it.
  template <int N>
  static __device__ __forceinline__ void split(unsigned int (&r)[N][2], unsigned int (&small)[N][2]) {
#pragma unroll
    for (int n = 0; n < 2 * N; n++) {
      const float value = __uint_as_float(r[n / 2][n % 2]);
      r[n / 2][n % 2] = to_tf32(value);
      small[n / 2][n % 2] = to_tf32(value - __uint_as_float(r[n / 2][n % 2]));
    }
  }

  static __device__ __forceinline__ unsigned int to_tf32(float value) {
    if constexpr (IS_SM_80) return float_to_tf32(value);
    return 0;
  }

  static __device__ __forceinline__ void add_products(
      Sums& sums, const unsigned int (&a)[2 * DOWN][2], const unsigned int (&b)[ACROSS][2]) {
#pragma unroll
    for (int j = 0; j < ACROSS; j++)
#pragma unroll
      for (int i = 0; i < DOWN; i++)
        mma(sums[i][j], {a[2 * i][0], a[2 * i + 1][0], a[2 * i][1], a[2 * i + 1][1]}, b[j], T{});
  }

  // Adds the products of a tile over depth `depth` to `depth_end` to sums.  Calls visit(step) for each step of a in shared
  // memory.  All threads of the block must call it with the same arguments.
  template <class SourceOfA, class SourceOfB, class Visit>
  static __device__ __forceinline__ void multiply(
      Sums& sums, unsigned char* shared, const SourceOfA& a, const SourceOfB& b, int row0, int column0, int depth,
      int depth_end, Visit& visit) {
    using A_ = OfA<SourceOfA>;
    using B_ = OfB<SourceOfB>;
    const int thread = kept(threadIdx.x);
    typename SourceOfA::Place a_places[A_::COPIES];
    typename SourceOfB::Place b_places[B_::COPIES];
    A_::prepare(a, a_places, thread, row0, depth);
    B_::prepare(b, b_places, thread, column0, depth);
    const int my_row = kept(first_line()), my_column = kept(first_column());

    int next = depth, filled = 0;  // the depth to copy, and where: the byte of a step in the ring
    const auto copy = [&] {
      if (next < depth_end) {
        A_::copy(shared + filled, a, a_places, thread, next, depth_end);
        B_::copy(shared + filled + A_::BYTES, b, b_places, thread, next, depth_end);
      }
      if constexpr (IS_SM_80) cp_async_commit();
      next += DEPTH;
      filled = filled == (STAGES - 1) * BYTES ? 0 : filled + BYTES;
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) copy();
    for (int read = 0; depth < depth_end; depth += DEPTH) {
      if constexpr (IS_SM_80) cp_async_wait<STAGES - 2>();
      __syncthreads();  // all threads see this step, and have read the one before, into which the next copy goes
      copy();
#pragma unroll
      for (int half = 0; half < 2; half++) {
        unsigned int of_a[2 * DOWN][2], of_b[ACROSS][2];
        A_::load(of_a, shared + read, my_row, half);
        B_::load(of_b, shared + read + A_::BYTES, my_column, half);
        add(sums, of_a, of_b);
      }
      visit(shared + read);
      read = read == (STAGES - 1) * BYTES ? 0 : read + BYTES;
    }
    __syncthreads();  // shared memory may be used otherwise
  }
};
