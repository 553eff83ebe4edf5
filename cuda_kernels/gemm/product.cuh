// The product of which all kernels with a GEMM consist: c (rows, columns) = a (rows, depth) b (depth, columns), in tiles, with
// an epilogue on each element.  gemm/source.cuh says where a and b come from; gemm/simt.cuh multiplies in plain arithmetic,
// gemm/mma.cuh on tensor cores.
//
// Tiles are numbered row by row, those of a batch of products one after the other.  The steps along depth of all tiles, one
// tile after the other, are shared out to the blocks in equal runs.  With as many blocks as tiles, each block computes a tile;
// with a multiple, a tile is split into slices along depth (split-K); with any other number, blocks compute the end of a tile,
// whole tiles, and the beginning of one (stream-K), so that all multiprocessors are busy for as long.  A block leaves the sums
// of a part of a tile in `partials`, and the last block of the tile to finish adds them, in the order of depth, and runs the
// epilogue.  The bits depend on the number of blocks, which the host chooses by the shape alone, and not on which is last.

#include "common/reduce.cuh"
#include "mma.cuh"
#include "simt.cuh"

// How a kernel multiplies: its template argument MATH.
struct Simt {};  // in T's accumulator
struct Mma {};   // on tensor cores, float32 rounded to TF32
struct Mma3 {};  // float32 on tensor cores, as the sum of three products of TF32

// The tile of a kernel.
template <class T, int ROWS, int COLUMNS, class MATH>
struct TileFor { using Type = Tile<T, ROWS, COLUMNS>; };
template <class T, int ROWS, int COLUMNS>
struct TileFor<T, ROWS, COLUMNS, Mma> { using Type = MmaTile<T, ROWS, COLUMNS, 1>; };
template <class T, int ROWS, int COLUMNS>
struct TileFor<T, ROWS, COLUMNS, Mma3> { using Type = MmaTile<T, ROWS, COLUMNS, 3>; };
template <class T, int ROWS, int COLUMNS, class MATH>
using TileOf = typename TileFor<T, ROWS, COLUMNS, MATH>::Type;

__device__ __forceinline__ int tiles(int extent, int tile) { return extent / tile + (extent % tile != 0); }

// Where the sums of parts of tiles go.
template <class A>
struct Split {
  A* partials;  // (blocks + tiles, values per thread, threads): a block's part of a tile is at index block + tile
  unsigned int* tickets;  // one per tile, zero between launches
};

// A tile, or the part of it that a block computes, from one step along depth to another.
struct Part {
  int tile, first, end;  // steps
  int place, places, of_first;  // which part of the tile it is, of how many, and the place in `partials` of the first one
};

// The blocks that share a product, and which of them this one is.
struct AllBlocks {
  __device__ __forceinline__ unsigned int number() const { return blockIdx.x; }
  __device__ __forceinline__ unsigned int count() const { return gridDim.x; }
};

// Calls compute(part) for each part of this block, one after the other.  There are at least as many steps as blocks.
template <class Tile, class Compute, class Blocks = AllBlocks>
__device__ __forceinline__ void for_each_part(int num_tiles, int depth, Compute compute, const Blocks& blocks = {}) {
  __shared__ Part part;  // all in shared memory, because the mainloop needs the registers
  __shared__ long long step, end, total;
  __shared__ int steps;  // of a tile
  if (threadIdx.x == 0) {
    steps = max(1, tiles(depth, Tile::DEPTH));
    total = static_cast<long long>(num_tiles) * steps;
    step = total * blocks.number() / blocks.count();
    end = total * (blocks.number() + 1) / blocks.count();
  }
  for (bool has_more = true; has_more;) {
    if (threadIdx.x == 0) {
      part.tile = step / steps;
      const long long start = static_cast<long long>(part.tile) * steps;
      part.first = step - start;
      part.end = min(static_cast<long long>(steps), end - start);
      // the block that has a step is the last one whose run does not begin behind it
      auto owner = [&](long long of) { return static_cast<int>(((of + 1) * blocks.count() - 1) / total); };
      const bool is_whole = part.first == 0 && part.end == steps;
      const int first_block = is_whole ? blocks.number() : owner(start);
      part.place = blocks.number() - first_block;
      part.places = is_whole ? 1 : owner(start + steps - 1) - first_block + 1;
      part.of_first = first_block + part.tile;
      step = start + part.end;
    }
    __syncthreads();
    compute(part);
    has_more = step < end;
    __syncthreads();
  }
}

// What else a kernel sums along depth, from the steps of a in shared memory: COUNT packs of sums per thread.  Here, nothing.
struct NoSums {
  static constexpr int COUNT = 0;
  template <class Step>
  __device__ void operator()(const Step&) {}
};

// Sums each line of a over depth, from its steps in shared memory.  A thread sums four lines over every GROUPS-th element;
// with fewer groups than there are threads for, the others have no part in it, and with as many for all tiles, all have the
// same bits.  ALONG: whether the source of a lies along depth.
template <class T, class Tile, bool ALONG, int GROUPS = Tile::THREADS / (Tile::ROWS / 4)>
struct LineSums {
  using A = typename Tile::A;
  struct Source {
    static constexpr bool ALONG_DEPTH = ALONG;
  };
  using OfA = typename Tile::template OfA<Source>;
  static constexpr int COUNT = 1, PACKS = Tile::ROWS / 4;
  static constexpr bool ALL = PACKS * GROUPS == Tile::THREADS;
  Pack<A, 4> sums[COUNT];
  bool is_needed;  // in the blocks of the first tile column; all others read the same lines

  template <class Step>
  __device__ __forceinline__ void operator()(const Step& step) {
    if (!is_needed) return;
    const unsigned int thread = kept(threadIdx.x);
    if (!ALL && thread >= PACKS * GROUPS) return;
#pragma unroll
    for (int k = thread / PACKS; k < Tile::DEPTH; k += GROUPS) {
      const Pack<A, 4> pack = OfA::four_lines(step, k, thread % PACKS * 4);
#pragma unroll
      for (int e = 0; e < 4; e++) sums[0].v[e] += pack.v[e];
    }
  }

  // Calls with_sum(line of the tile, its sum).
  template <class WithSum>
  __device__ __forceinline__ void finish(WithSum with_sum) {
    __shared__ __align__(16) A of_group[GROUPS][Tile::ROWS];
    const unsigned int thread = kept(threadIdx.x);
    if (ALL || thread < PACKS * GROUPS) store_pack(&of_group[thread / PACKS][thread % PACKS * 4], sums[0], 4, 4);
    __syncthreads();
    for (int line = thread; line < Tile::ROWS; line += Tile::THREADS) {
      A sum = of_group[0][line];
#pragma unroll
      for (int group = 1; group < GROUPS; group++) sum += of_group[group][line];
      with_sum(line, sum);
    }
  }
};

// The groups of LineSums in kernels of linear layers.  The tiles of tensor cores all have four.
template <class MATH>
constexpr int LINE_GROUPS = 4;
template <>
constexpr int LINE_GROUPS<Simt> = 2;

// Replaces a block's sums by those of all parts, and returns true, in the last block of the tile; returns false in the others.
template <class Tile, class Extra>
__device__ __forceinline__ bool sum_parts(
    typename Tile::Sums& sums, Extra& extra, const Split<typename Tile::A>& split, const Part& part) {
  using A = typename Tile::A;
  constexpr int THREADS = Tile::THREADS, PACKS = Tile::PACKS + Extra::COUNT;
  const int thread = kept(threadIdx.x);
  A* of_tile = split.partials + static_cast<long long>(part.of_first) * PACKS * 4 * THREADS;
  // calls visit(sum, its place in a part) for each sum of the thread
  auto for_each = [&](auto visit) {
#pragma unroll
    for (int p = 0; p < Tile::PACKS; p++) visit(Tile::pack(sums, p), 4 * (p * THREADS + thread));
    if constexpr (Extra::COUNT > 0) {
#pragma unroll
      for (int s = 0; s < Extra::COUNT; s++) visit(extra.sums[s], 4 * ((Tile::PACKS + s) * THREADS + thread));
    }
  };
  A* own = of_tile + static_cast<long long>(part.place) * PACKS * 4 * THREADS;
  for_each([&](Pack<A, 4>& pack, int place) { store_pack(own + place, pack, 4, 4); });
  if (!is_last(split.tickets + part.tile, part.places)) return false;
  for_each([&](Pack<A, 4>& pack, int place) { pack = load_pack<4>(of_tile + place, 4, 4); });
#pragma unroll 1
  for (int other = 1; other < part.places; other++) {
    const A* from = of_tile + static_cast<long long>(other) * PACKS * 4 * THREADS;
    for_each([&](Pack<A, 4>& pack, int place) {
      const Pack<A, 4> more = load_pack<4>(from + place, 4, 4);
#pragma unroll
      for (int e = 0; e < 4; e++) pack.v[e] += more.v[e];
    });
  }
  return true;
}

// Computes a part of a tile, which has this number in its product, and calls epilogue(row, column, pack of four, valid) for
// each pack of the tile.  Returns whether the block has done so, and not left its sums to another one.
template <class T, class Tile, class SourceOfA, class SourceOfB, class Epilogue, class Extra>
__device__ __forceinline__ bool product(
    const Part& part, int tile, const SourceOfA& a, const SourceOfB& b, int depth, const Split<typename Tile::A>& split,
    Epilogue epilogue, Extra& extra) {
  using A = typename Tile::A;
  constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, THREADS = Tile::THREADS;
  auto* const shared = Tile::memory();
  const int across = b.lines ? tiles(b.lines, COLUMNS) : 1;
  __shared__ int origin[2];  // the first row and column of the tile, for the epilogue: the mainloop needs the registers
  if (threadIdx.x == 0) {
    origin[0] = tile / across * ROWS;
    origin[1] = tile % across * COLUMNS;
  }
  const int end = min(static_cast<long long>(part.end) * Tile::DEPTH, static_cast<long long>(depth));
  typename Tile::Sums sums = {};
  const int row0 = tile / across * ROWS, column0 = tile % across * COLUMNS, first = part.first * Tile::DEPTH;
  if constexpr (!IS_EITHER<SourceOfA>) {
    Tile::multiply(sums, shared, a, b, row0, column0, first, end, extra);
  } else if (a.is_whole && b.is_whole) {
    Tile::multiply(sums, shared, a.template as<true>(), b.template as<true>(), row0, column0, first, end, extra);
  } else {
    Tile::multiply(sums, shared, a.template as<false>(), b.template as<false>(), row0, column0, first, end, extra);
  }
  if (part.places > 1 && !sum_parts<Tile>(sums, extra, split, part)) return false;

  // The sums pass through shared memory, BAND rows at a time, so that a warp stores whole rows, and so that the epilogue is
  // compiled once and not once per pack of a thread, which would add seconds of compile time.
  constexpr int FITS = Tile::SHARED_BYTES / sizeof(A) / COLUMNS;
  constexpr int BAND = FITS >= 64 ? 64 : FITS >= 32 ? 32 : FITS >= 16 ? 16 : 8, ACROSS = COLUMNS / 4;
  A(&band)[BAND][COLUMNS] = *reinterpret_cast<A(*)[BAND][COLUMNS]>(shared);
  const int thread = kept(threadIdx.x);
#pragma unroll 1
  for (int top = 0; top < ROWS; top += BAND) {
    Tile::template for_each_pack<typename Tile::template OfA<SourceOfA>, typename Tile::template OfB<SourceOfB>>(
        sums, [&](int of_tile, int column, const auto& pack) {
          constexpr int N = sizeof(pack) / sizeof(A);
          const int row = of_tile - top;
          if (row >= 0 && row < BAND) store_pack(&band[row][Tile::band_place(row, column)], pack, N, N);
        });
    __syncthreads();
#pragma unroll 2
    for (int index = thread; index < BAND * ACROSS; index += THREADS) {
      const int row = origin[0] + top + index / ACROSS, column = origin[1] + index % ACROSS * 4;
      Pack<A, 4> pack = load_pack<4>(&band[index / ACROSS][Tile::band_place(index / ACROSS, index % ACROSS * 4)], 4, 4);
      if (row < a.lines && column < b.lines) epilogue(row, column, pack, b.lines - column);
    }
    __syncthreads();
  }
  return true;
}
