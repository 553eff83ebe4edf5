// Mainloop of products on tensor cores (mma.sync): halves as they are, float32 rounded to TF32, both accumulated in float32.
//
// A block computes one tile of c = a b in steps of 64 bytes of depth: 32 halves or 16 float32.  A ring of STAGES steps in
// shared memory is filled by asynchronous copies, STAGES - 1 steps ahead, so there is one barrier per step.  Operands that are
// not WHOLE are copied through registers, and all are on sm_75.
//
//   tile        warps   for
//   128 x 128   4       products that fill a GPU with such tiles
//   64 x 64     2       smaller ones
//
// A warp computes 64 x 64 elements.  In the smaller tile both warps compute all of it, each in one half of the depth of every
// step, so that no fragment is read twice.  At the end each gets half of the rows, and adds the sums of the other warp.
//
// TERMS: 1, or 3 for float32 as the sum of two numbers of TF32, big and small: small big, big small and big big are added, and
// small small, at most 2^-22 of the product, is left out.
//
// float16 needs sm_75, all others sm_80; for older GPUs the host chooses plain arithmetic (gpunet/ops/gemm.py).

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

// One step of an operand of LINES lines in shared memory, OF_WARP of which a warp reads, in chunks of 16 bytes.  ALONG_DEPTH: a
// row is a line, 64 bytes of depth; else a row is a depth, across the lines.  Chunks are permuted in each row, so that the
// eight rows of an ldmatrix, the lanes of a load, and neighbouring threads of a copy use all banks.
template <class Tile, class T, int LINES, int OF_WARP, bool OF_A, bool ALONG_DEPTH>
struct Chunks {
  static constexpr bool IS_HALF = sizeof(T) == 2;
  static constexpr int PACK = Tile::PACK, BYTES = LINES * Tile::STEP_BYTES;
  static constexpr int ACROSS = (ALONG_DEPTH ? Tile::DEPTH : LINES) / PACK;  // of a row
  static constexpr int COPIES = BYTES / 16 / Tile::THREADS;                  // per thread and step
  static constexpr int ROWS = Tile::THREADS / ACROSS;                        // that the block copies at once
  // ldmatrix does not transpose float32: across lines, those are read by plain loads.  Of a, in pairs of lines, which are made
  // rows `group` and `group` + 8 of a fragment.
  static constexpr bool IS_PLAIN = !ALONG_DEPTH && !IS_HALF;

  // The byte at which a chunk lies.
  static __device__ __forceinline__ int place(int row, int chunk) {
    const int by = ALONG_DEPTH ? row / 2 % 4 : IS_HALF ? row % 8 : row % 4 * 2;
    return (row * ACROSS + (chunk ^ by)) * 16;
  }

  // The row and the chunk of a thread's first copy.  The next ones are ROWS rows apart, where chunks are permuted alike.
  static __device__ __forceinline__ int row_of(int thread) { return thread / ACROSS; }
  static __device__ __forceinline__ int chunk_of(int thread) { return thread % ACROSS; }

  template <class Source>
  static __device__ __forceinline__ void prepare(
      const Source& source, typename Source::Place (&places)[COPIES], int thread, int line, int depth) {
#pragma unroll
    for (int p = 0; p < COPIES; p++) {
      const int row = row_of(thread) + p * ROWS, at = chunk_of(thread) * PACK;
      places[p] = ALONG_DEPTH ? source.prepare(line + row, depth + at) : source.prepare(line + at, depth + row);
      if constexpr (Source::IS_WHOLE) places[p].start = source.address(places[p], depth + at);  // which moves along depth
    }
  }

  // Copies the step at `depth` to shared memory, and moves the places to the next one.
  template <class Source>
  static __device__ __forceinline__ void copy(
      unsigned char* step, const Source& source, typename Source::Place (&places)[COPIES], int thread, int depth, int end) {
    unsigned char* const first = step + place(row_of(thread), chunk_of(thread));
#pragma unroll
    for (int p = 0; p < COPIES; p++) {
      const int at = depth + (ALONG_DEPTH ? chunk_of(thread) * PACK : row_of(thread) + p * ROWS);
      unsigned char* const to = first + p * ROWS * ACROSS * 16;
      if constexpr (Source::IS_WHOLE) {
        copy_16(to, places[p].start, at < end);
        places[p].start += Tile::DEPTH * source.depth_stride;
      } else {
        *reinterpret_cast<Pack<T, PACK>*>(to) = source.template load<PACK>(places[p], at, end);
        source.advance(places[p], Tile::DEPTH);
      }
    }
  }

  // Copies 16 bytes, or zeros.
  static __device__ __forceinline__ void copy_16(unsigned char* to, const T* from, bool is_inside) {
    if constexpr (IS_SM_80) {
      cp_async_cg(to, from, is_inside ? 16 : 0);
    } else {
      uint4 pack = {};
      if (is_inside) pack = *reinterpret_cast<const uint4*>(from);
      *reinterpret_cast<uint4*>(to) = pack;
    }
  }

  // Four elements of neighbouring lines at one depth.  Not ALONG_DEPTH.
  static __device__ __forceinline__ Pack<float, 4> four_lines(const unsigned char* step, int depth, int line) {
    return load_pack<4>(reinterpret_cast<const T*>(step + place(depth, line / PACK)) + line % PACK, 4, 4);
  }

  // The line of a warp that is row `group` of 8-line matrix `number` of the fragments of a.
  static __device__ __forceinline__ int line_of(int number, int group) {
    return IS_PLAIN ? number / 2 * 16 + group * 2 + number % 2 : number * 8 + group;
  }

  // Fragments of half a step: r[m] is that of lines 16 m to 16 m + 15 of a warp, which are two matrices n of 8 lines, in two
  // quarters q of the depth.  OF_A: r[m][2 q + n], else r[m][2 n + q].
  using Fragments = unsigned int[OF_WARP / 16][4];

  // Where a lane reads in a step: its byte for the first of the fragments of the warp whose lines begin at `line`.
  static __device__ __forceinline__ int first_read(int line) {
    const int lane = threadIdx.x % 32, in_matrix = lane % 8, low = lane / 8 % 2, high = lane / 16;
    const int n = OF_A ? low : high, q = OF_A ? high : low;
    if (IS_PLAIN) {
      const int of_lane = OF_A ? lane / 4 * 2 : lane / 4;
      return place(lane % 4, (line + of_lane) / PACK) + of_lane % PACK * 4;
    }
    return ALONG_DEPTH ? place(line + 8 * n + in_matrix, q) : place(8 * q + in_matrix, line / PACK + n);
  }

  // The same in a half of the step.
  static __device__ __forceinline__ int first_of_half(int first, int half) {
    return ALONG_DEPTH ? first ^ half * 32 : first + half * Tile::DEPTH / 2 * ACROSS * 16;
  }

  // Loads the fragments of half a step.  All m are at constant distances from the first read, or differ in constant bits.
  static __device__ __forceinline__ void load(Fragments& r, const unsigned char* step, int first) {
    if constexpr (IS_PLAIN) {
#pragma unroll
      for (int q = 0; q < 2; q++)
#pragma unroll
        for (int m = 0; m < OF_WARP / 16; m++) {
          const unsigned char* quarter = step + q * 4 * ACROSS * 16;
          if constexpr (OF_A) {
            const uint2 two = *reinterpret_cast<const uint2*>(quarter + (first ^ m * 64));
            r[m][2 * q] = two.x;
            r[m][2 * q + 1] = two.y;
          } else {
            r[m][q] = *reinterpret_cast<const unsigned int*>(quarter + (first ^ m * 64));
            r[m][2 + q] = *reinterpret_cast<const unsigned int*>(quarter + (first ^ m * 64 ^ 32));
          }
        }
    } else {
#pragma unroll
      for (int m = 0; m < OF_WARP / 16; m++) {
        if constexpr (ALONG_DEPTH) ldmatrix(r[m], step + first + m * 16 * ACROSS * 16);
        else ldmatrix_trans(r[m], step + (first ^ m * 32));
      }
    }
  }
};

template <class T, int ROWS_, int COLUMNS_, int TERMS>
struct MmaTile {
  using A = float;
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, STAGES = 3, STEP_BYTES = 64;
  static constexpr int DEPTH = STEP_BYTES / sizeof(T);  // of a step
  static constexpr int PACK = 16 / sizeof(T);           // elements that are copied at once
  static constexpr int OF_WARP = 64;                    // rows and columns
  static constexpr int DEEP = ROWS == 128 ? 1 : 2;      // warps that share the depth of a step
  static constexpr int WARPS_ACROSS = COLUMNS / OF_WARP, THREADS = ROWS / OF_WARP * WARPS_ACROSS * DEEP * 32;
  static constexpr int BLOCKS = DEEP == 1 ? 2 : 4;  // per multiprocessor: 255 registers per thread
  static constexpr int BYTES = (ROWS + COLUMNS) * STEP_BYTES, SHARED_BYTES = STAGES * BYTES;

  static constexpr int DOWN = OF_WARP / 16, ACROSS = OF_WARP / 8;  // of a warp, in sums of 16 x 8
  using SumsOfWarp = float[DOWN][ACROSS][4];
  using Sums = float[DOWN / DEEP][ACROSS][4];                      // at the end
  static constexpr int PACKS = DOWN / DEEP * ACROSS;

  static __device__ __forceinline__ unsigned char* memory() {
    extern __shared__ __align__(128) unsigned char mma_steps[];
    return mma_steps;
  }

  static __device__ __forceinline__ Pack<float, 4>& pack(Sums& sums, int p) {
    return *reinterpret_cast<Pack<float, 4>*>(sums[p / ACROSS][p % ACROSS]);
  }

  // The first row and column of a warp's sums.
  static __device__ __forceinline__ int first_row(unsigned int thread) { return thread / 32 / WARPS_ACROSS * (OF_WARP / DEEP); }
  static __device__ __forceinline__ int first_column(unsigned int thread) { return thread / 32 % WARPS_ACROSS * OF_WARP; }

  // Four columns of row r at column c of the tile lie at band_place(r, c) in a row of shared memory, so that the lanes that
  // store sums use all banks.
  static __device__ __forceinline__ int band_place(int row, int column) {
    const int by = (row ^ row / 4) % 4;
    return column ^ (by / 2 * 16 + by % 2 * 12);
  }

  // Calls visit(row, column, sums) for the thread's sums, in packs of neighbouring columns.
  template <class OfA, class OfB, class Visit>
  static __device__ __forceinline__ void for_each_pack(const Sums& sums, Visit visit) {
    const unsigned int thread = kept(threadIdx.x);
    const int group = thread % 32 / 4, member = thread % 4, column = first_column(thread);
#pragma unroll
    for (int i = 0; i < DOWN / DEEP; i++)
#pragma unroll
      for (int low = 0; low < 2; low++) {
        const int row = first_row(thread) + OfA::line_of(2 * i + low, group);
#pragma unroll
        for (int j = 0; j < ACROSS; j++)
          visit(row, column + 8 * j + 2 * member, Pack<float, 2>{{sums[i][j][2 * low], sums[i][j][2 * low + 1]}});
      }
  }

  template <class SourceOfA>
  using OfA = Chunks<MmaTile, T, ROWS, OF_WARP, true, SourceOfA::ALONG_DEPTH>;
  template <class SourceOfB>
  using OfB = Chunks<MmaTile, T, COLUMNS, OF_WARP, false, SourceOfB::ALONG_DEPTH>;

  using FragmentsOfA = unsigned int[DOWN][4];
  using FragmentsOfB = unsigned int[ACROSS / 2][4];

  // Adds the products of the fragments of half a step.
  static __device__ __forceinline__ void add(SumsOfWarp& sums, FragmentsOfA& a, FragmentsOfB& b) {
    if constexpr (sizeof(T) == 2) {
      add_products(sums, a, b);
    } else if constexpr (TERMS == 1) {
      round(a);
      round(b);
      add_products(sums, a, b);
    } else {
      FragmentsOfA small_a;
      FragmentsOfB small_b;
      split(a, small_a);
      split(b, small_b);
      add_products(sums, small_a, b);
      add_products(sums, a, small_b);
      add_products(sums, a, b);
    }
  }

  template <int N>
  static __device__ __forceinline__ void round(unsigned int (&r)[N][4]) {
#pragma unroll
    for (int n = 0; n < 4 * N; n++) r[n / 4][n % 4] = to_tf32(__uint_as_float(r[n / 4][n % 4]));
  }

  // r = big + small, up to 2^-22 of it.
  template <int N>
  static __device__ __forceinline__ void split(unsigned int (&r)[N][4], unsigned int (&small)[N][4]) {
#pragma unroll
    for (int n = 0; n < 4 * N; n++) {
      const float value = __uint_as_float(r[n / 4][n % 4]);
      r[n / 4][n % 4] = to_tf32(value);
      small[n / 4][n % 4] = to_tf32(value - __uint_as_float(r[n / 4][n % 4]));
    }
  }

  static __device__ __forceinline__ unsigned int to_tf32(float value) {
    if constexpr (IS_SM_80) return float_to_tf32(value);
    return 0;
  }

  static __device__ __forceinline__ void add_products(SumsOfWarp& sums, const FragmentsOfA& a, const FragmentsOfB& b) {
#pragma unroll
    for (int j = 0; j < ACROSS; j++)
#pragma unroll
      for (int i = 0; i < DOWN; i++) mma(sums[i][j], a[i], {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}, T{});
  }

  // Adds the sums of the two warps: each keeps half of the rows.
  static __device__ __forceinline__ void add_warps(Sums& sums, SumsOfWarp& of_warp, unsigned char* shared) {
    constexpr int KEPT = DOWN / 2;
    const unsigned int thread = kept(threadIdx.x);
    const int lane = thread % 32, warp = thread / 32;
    Pack<float, 4>(*exchanged)[KEPT * ACROSS][32] = reinterpret_cast<Pack<float, 4>(*)[KEPT * ACROSS][32]>(shared);
#pragma unroll
    for (int p = 0; p < KEPT * ACROSS; p++) {
      Pack<float, 4> given;
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float low = of_warp[p / ACROSS][p % ACROSS][e], high = of_warp[KEPT + p / ACROSS][p % ACROSS][e];
        given.v[e] = warp ? low : high;
        sums[p / ACROSS][p % ACROSS][e] = warp ? high : low;
      }
      exchanged[warp][p][lane] = given;
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < KEPT * ACROSS; p++) {
      const Pack<float, 4> taken = exchanged[1 - warp][p][lane];
#pragma unroll
      for (int e = 0; e < 4; e++) sums[p / ACROSS][p % ACROSS][e] += taken.v[e];
    }
    __syncthreads();
  }

  // Sets sums to the products of a tile over depth `depth` to `depth_end`.  Calls visit(step) for each step of a in shared
  // memory.  All threads of the block must call it with the same arguments.
  template <class SourceOfA, class SourceOfB, class Visit>
  static __device__ __forceinline__ void multiply(
      Sums& sums, unsigned char* shared, const SourceOfA& a, const SourceOfB& b, int row0, int column0, int depth,
      int depth_end, Visit& visit) {
    using ChunksOfA = OfA<SourceOfA>;
    using ChunksOfB = OfB<SourceOfB>;
    const int thread = kept(threadIdx.x);
    typename SourceOfA::Place a_places[ChunksOfA::COPIES];
    typename SourceOfB::Place b_places[ChunksOfB::COPIES];
    ChunksOfA::prepare(a, a_places, thread, row0, depth);
    ChunksOfB::prepare(b, b_places, thread, column0, depth);
    const int line = DEEP == 1 ? first_row(thread) : 0;
    const int my_half = DEEP == 1 ? 0 : static_cast<unsigned int>(thread) / 32;
    const int first_of_a = kept(ChunksOfA::first_of_half(ChunksOfA::first_read(line), my_half));
    const int first_of_b = kept(ChunksOfB::first_of_half(ChunksOfB::first_read(first_column(thread)), my_half));
    SumsOfWarp of_warp = {};

    int next = depth, filled = 0;  // the depth to copy, and where: the byte of a step in the ring
    const auto copy = [&] {
      if (next < depth_end) {
        ChunksOfA::copy(shared + filled, a, a_places, thread, next, depth_end);
        ChunksOfB::copy(shared + filled + ChunksOfA::BYTES, b, b_places, thread, next, depth_end);
      }
      if constexpr (IS_SM_80) cp_async_commit();
      next += DEPTH;
      filled = filled == (STAGES - 1) * BYTES ? 0 : filled + BYTES;
    };
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; stage++) copy();
#pragma unroll 1
    for (int read = 0; depth < depth_end; depth += DEPTH) {
      if constexpr (IS_SM_80) cp_async_wait<STAGES - 2>();
      __syncthreads();  // all threads see this step, and have read the one before, into which the next copy goes
      copy();
#pragma unroll
      for (int half = 0; half < 2 / DEEP; half++) {
        FragmentsOfA of_a;
        FragmentsOfB of_b;
        ChunksOfA::load(of_a, shared + read, ChunksOfA::first_of_half(first_of_a, half));
        ChunksOfB::load(of_b, shared + read + ChunksOfA::BYTES, ChunksOfB::first_of_half(first_of_b, half));
        add(of_warp, of_a, of_b);
      }
      visit(shared + read);
      read = read == (STAGES - 1) * BYTES ? 0 : read + BYTES;
    }
    __syncthreads();  // shared memory may be used otherwise
    if constexpr (DEEP == 2) {
      add_warps(sums, of_warp, shared);
    } else {
#pragma unroll
      for (int n = 0; n < 4 * PACKS; n++) (&sums[0][0][0])[n] = (&of_warp[0][0][0])[n];
    }
  }
};
