// Stage and mainloop of products in plain float32 or float64 arithmetic.  Halves are widened to float32 on their way to
// shared memory.
//
// A block computes one tile of c = a b, each thread 8 x 8 elements of it, in steps of depth.  Shared memory is
// double-buffered: while one step is computed, the next is loaded from global memory through registers into the other half,
// so there is one barrier per step.
//
//   tile        threads   for
//   128 x 128   256       products that fill a GPU with such tiles
//   64 x 64     64        smaller ones
//   128 x 32    64        few columns, such as the classes of a classifier
//   32 x 128    64        few rows

#include "source.cuh"

template <class Tile, class T, int LINES, bool ALONG_DEPTH>
struct Stage;

template <class Tile>
struct Shared {
  typename Tile::A a[2][Tile::DEPTH][Tile::ROWS], b[2][Tile::DEPTH][Tile::COLUMNS];
};

template <class T, int ROWS_, int COLUMNS_>
struct Tile {
  using A = Accumulator<T>;
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, THREADS = ROWS * COLUMNS / 64;
  static constexpr int DEPTH = 32 / sizeof(A);  // of a step
  static constexpr int PACK = VECTOR<A>;        // elements that are loaded at once
  // Several blocks per multiprocessor hide each other's latency.  They leave 128 registers per thread, 168 in a block of 64
  // threads, and 255 of float64.
  static constexpr int BLOCKS = (THREADS == 256 ? 2 : 6) * sizeof(float) / sizeof(A);

  // The first row and column of a thread's outputs, which are 2 x 2 groups of 4 x 4, half a tile apart.  A warp covers 16 x 32
  // elements of a group (32 x 16 of a narrow tile).  Lanes that differ in bit 0 read the same rows of a, in bit 1 the same
  // columns of b: shared memory serves such a pair at once.
  static constexpr int WARP_COLUMNS = COLUMNS == 32 ? 4 : 8, WARPS_ACROSS = COLUMNS / 8 / WARP_COLUMNS;

  static __device__ __forceinline__ int first_row(unsigned int thread = threadIdx.x) {
    const int lane = thread % 32, low = lane / 2 % 2 + lane / 16 * 2;
    return (thread / 32 / WARPS_ACROSS * (32 / WARP_COLUMNS) + (COLUMNS == 32 ? low + lane / 8 % 2 * 4 : low)) * 4;
  }

  static __device__ __forceinline__ int first_column(unsigned int thread = threadIdx.x) {
    const int lane = thread % 32, low = lane % 2 + lane / 4 % 2 * 2;
    return (thread / 32 % WARPS_ACROSS * WARP_COLUMNS + (COLUMNS == 32 ? low : low + lane / 8 % 2 * 4)) * 4;
  }

  using Sums = A[8][8];
  static constexpr int PACKS = 16;  // of a thread
  static constexpr int SHARED_BYTES = 2 * DEPTH * (ROWS + COLUMNS) * sizeof(A);

  static __device__ __forceinline__ Shared<Tile>* memory() {
    __shared__ __align__(16) Shared<Tile> shared;
    return &shared;
  }

  static __device__ __forceinline__ Pack<A, 4>& pack(Sums& sums, int p) {
    return *reinterpret_cast<Pack<A, 4>*>(&sums[p / 2][p % 2 * 4]);
  }

  template <class SourceOfA>
  using OfA = Stage<Tile, T, ROWS, SourceOfA::ALONG_DEPTH>;
  template <class SourceOfB>
  using OfB = Stage<Tile, T, COLUMNS, SourceOfB::ALONG_DEPTH>;

  // Where column c of row r of the tile lies in a row of shared memory: neighbouring groups of rows, which lanes store at once,
  // in different banks.
  static __device__ __forceinline__ int band_place(int row, int column) { return column ^ row / 4 % 2 * 16; }

  // Calls visit(row, column, sums) for the thread's sums, in packs of neighbouring columns.
  template <class, class, class Visit>
  static __device__ __forceinline__ void for_each_pack(const Sums& sums, Visit visit) {
    const int thread = kept(threadIdx.x), row = first_row(thread), column = first_column(thread);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
      for (int group = 0; group < 2; group++) {
        Pack<A, 4> four;
#pragma unroll
        for (int e = 0; e < 4; e++) four.v[e] = sums[i][4 * group + e];
        visit(row + i % 4 + i / 4 * (ROWS / 2), column + COLUMNS / 2 * group, four);
      }
  }

  template <class SourceOfA, class SourceOfB, class Visit>
  static __device__ __forceinline__ void multiply(
      Sums& sums, Shared<Tile>* shared, const SourceOfA& a, const SourceOfB& b, int row0, int column0, int depth, int depth_end,
      Visit& visit);
};

// One step of one operand: in registers between global and shared memory, where it is [depth][line].
template <class Tile, class T, int LINES, bool ALONG_DEPTH>
struct Stage {
  using A = Accumulator<T>;
  static constexpr int DEPTH = Tile::DEPTH, THREADS = Tile::THREADS;
  static constexpr int PACKS = LINES * DEPTH / (THREADS * VECTOR<A>);  // per thread
  static constexpr int ACROSS = (ALONG_DEPTH ? DEPTH : LINES) / VECTOR<A>;  // packs in the direction of loading
  static constexpr int ROWS = THREADS / ACROSS;  // rows of packs that the block loads at once

  Pack<T, VECTOR<A>> packs[PACKS];

  // Returns the place of a line in shared memory.  With ALONG_DEPTH the lines are permuted differently for each pack of depth,
  // so that a warp's stores use all banks.  Four neighbouring lines stay neighbours.
  static constexpr int APART = 128 / static_cast<int>(sizeof(A)) / ACROSS;

  static __device__ __forceinline__ int place(int depth, int line) {
    return ALONG_DEPTH ? line ^ depth / VECTOR<A> % ACROSS * APART : line;
  }

  // The place of the line half an operand behind one of the first half.
  static __device__ __forceinline__ int place_of_group(int depth, int line, int group) {
    const int first = place(depth, line), half = LINES / 2 * group;
    return ALONG_DEPTH && LINES / 2 < (ACROSS - 1) * APART + 1 ? first ^ half : first + half;
  }

  // The line and the depth of a thread's pack in a step.
  static __device__ __forceinline__ int line_of(int thread, int p) {
    return ALONG_DEPTH ? thread / ACROSS + p * ROWS : thread % ACROSS * VECTOR<A>;
  }
  static __device__ __forceinline__ int depth_of(int thread, int p) {
    return ALONG_DEPTH ? thread % ACROSS * VECTOR<A> : thread / ACROSS + p * ROWS;
  }

  // Four elements of neighbouring lines at one depth of a step in shared memory.
  static __device__ __forceinline__ Pack<A, 4> four_lines(const A (&step)[DEPTH][LINES], int depth, int line) {
    return load_pack<4>(&step[depth][place(depth, line)], 4, 4);
  }

  template <class Source>
  static __device__ __forceinline__ void prepare(
      const Source& source, typename Source::Place (&places)[PACKS], int thread, int line, int depth) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) places[p] = source.prepare(line + line_of(thread, p), depth + depth_of(thread, p));
  }

  // Loads the step at `depth`, and moves the places to the next one.
  template <class Source>
  __device__ __forceinline__ void fetch(
      const Source& source, typename Source::Place (&places)[PACKS], int thread, int depth, int depth_end) {
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      packs[p] = source.template load<VECTOR<A>>(places[p], depth + depth_of(thread, p), depth_end);
      source.advance(places[p], DEPTH);
    }
  }

  __device__ __forceinline__ void store(A (&shared)[DEPTH][LINES], int thread) const {
    const int walk = thread % ACROSS * VECTOR<A>;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int jump = thread / ACROSS + p * ROWS;
      const Pack<A, VECTOR<A>> pack = converted<A>(packs[p]);
      if (ALONG_DEPTH) {
        const int at = place(walk, jump);
#pragma unroll
        for (int e = 0; e < VECTOR<A>; e++) shared[walk + e][at] = pack.v[e];
      } else {
        store_pack(&shared[jump][walk], pack, VECTOR<A>, VECTOR<A>);
      }
    }
  }
};

// Adds the products of a tile over depth `depth` to `depth_end` to sums.  Calls visit(step) for each step of a in shared
// memory.  All threads of the block must call it with the same arguments.
template <class T, class Tile, class SourceOfA, class SourceOfB, class Visit>
__device__ __forceinline__ void multiply(
    typename Tile::A (&sums)[8][8], Shared<Tile>& shared, const SourceOfA& a, const SourceOfB& b, int row0, int column0,
    int depth, int depth_end, Visit& visit) {
  using StageOfA = Stage<Tile, T, Tile::ROWS, SourceOfA::ALONG_DEPTH>;
  using StageOfB = Stage<Tile, T, Tile::COLUMNS, SourceOfB::ALONG_DEPTH>;
  constexpr int DEPTH = Tile::DEPTH;
  const int thread = kept(threadIdx.x);
  typename SourceOfA::Place a_places[StageOfA::PACKS];
  typename SourceOfB::Place b_places[StageOfB::PACKS];
  StageOfA::prepare(a, a_places, thread, row0, depth);
  StageOfB::prepare(b, b_places, thread, column0, depth);
  StageOfA a_stage;
  StageOfB b_stage;
  const int my_row = kept(Tile::first_row(thread)), my_column = kept(Tile::first_column(thread));

  if (depth < depth_end) {
    a_stage.fetch(a, a_places, thread, depth, depth_end);
    b_stage.fetch(b, b_places, thread, depth, depth_end);
    a_stage.store(shared.a[0], thread);
    b_stage.store(shared.b[0], thread);
  }
  __syncthreads();
  for (int half = 0; depth < depth_end; half ^= 1) {
    depth += DEPTH;
    const bool more = depth < depth_end;
    if (more) {
      a_stage.fetch(a, a_places, thread, depth, depth_end);
      b_stage.fetch(b, b_places, thread, depth, depth_end);
    }
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      Pack<typename Tile::A, 4> of_a[2], of_b[2];
#pragma unroll
      for (int group = 0; group < 2; group++) {
        of_a[group] = load_pack<4>(&shared.a[half][k][StageOfA::place_of_group(k, my_row, group)], 4, 4);
        of_b[group] = load_pack<4>(&shared.b[half][k][StageOfB::place_of_group(k, my_column, group)], 4, 4);
      }
#pragma unroll
      for (int i = 0; i < 8; i++)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[i][j] += of_a[i / 4].v[i % 4] * of_b[j / 4].v[j % 4];
    }
    visit(shared.a[half]);
    if (more) {
      a_stage.store(shared.a[half ^ 1], thread);
      b_stage.store(shared.b[half ^ 1], thread);
    }
    __syncthreads();
  }
}

template <class T, int ROWS_, int COLUMNS_>
template <class SourceOfA, class SourceOfB, class Visit>
__device__ __forceinline__ void Tile<T, ROWS_, COLUMNS_>::multiply(
    Sums& sums, Shared<Tile>* shared, const SourceOfA& a, const SourceOfB& b, int row0, int column0, int depth, int depth_end,
    Visit& visit) {
  ::multiply<T, Tile>(sums, *shared, a, b, row0, column0, depth, depth_end, visit);
}
