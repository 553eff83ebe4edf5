// Sources: where the operands of a product come from.
//
// An operand has `lines` (the rows of a, or the columns of b) of `depth` elements each.  A Source tells how to load them:
//
//   ALONG_DEPTH                   whether the elements of a pack, and neighbouring threads, lie along depth, else across lines
//   lines                         their number
//   prepare(line, depth)          where a thread's pack is that begins there: a Place
//   load<N>(place, depth, end)    the pack of N elements at a place, whose depth the caller knows; zero outside of the operand
//   advance(place, depth)         moves a place by so much along depth
//
// A mainloop asks for nothing else, so that a product of matrices and a convolution differ in their sources only.  That of
// tensor cores (mma.cuh) copies from memory to memory; it also asks for
//
//   IS_WHOLE                      whether every pack is inside or outside of the operand, and aligned
//   address(place, depth)         of a pack, if they are; outside of depth it may be any
//   depth_stride                  between neighbours along depth

#include "common/pack.cuh"

// Returns x.  The compiler cannot compute the result of a shuffle again, so it keeps it in a register, where it would otherwise
// compute addresses from threadIdx.x again in each step of a mainloop.
__device__ __forceinline__ int kept(int x) { return __shfl_sync(0xffffffffu, x, threadIdx.x % 32); }

// A matrix with any strides.  WHOLE: all packs of PACK elements lie in rows of a multiple of PACK elements that begin at
// multiples of a pack's size, so each is inside or outside of the operand, and loaded at once; the host knows that.  Otherwise
// packs may be ragged and are loaded in the widest accesses that the rows allow, a third of a mainloop's instructions.
template <class T, bool ALONG, bool WHOLE, int PACK = VECTOR<Accumulator<T>>, class Stride = long long>
struct Strided {
  static constexpr bool ALONG_DEPTH = ALONG, IS_WHOLE = WHOLE;

  const T* data;
  int lines;
  long long line_stride;
  Stride depth_stride;
  int width;  // of accesses, in elements

  struct Place {
    const T* start;  // ALONG: of the line, to which the depth is added; else of the pack, moved by advance: fewer instructions
    int valid;       // lines from this one on
  };

  __device__ __forceinline__ Strided(const T* data, int lines, long long line_stride, Stride depth_stride)
      : data(data), lines(lines), line_stride(line_stride), depth_stride(depth_stride),
        width((ALONG ? depth_stride : line_stride) == 1 ? access_width(ALONG ? line_stride : depth_stride, data) : 1) {}

  // Past the end, WHOLE packs repeat the last line: its products lie outside of the result.
  __device__ __forceinline__ Place prepare(int line, int depth) const {
    if (WHOLE) line = min(line, lines - (ALONG ? 1 : PACK));
    return {data + line * line_stride + (ALONG ? 0 : static_cast<long long>(depth) * depth_stride), lines - line};
  }

  __device__ __forceinline__ const T* address(const Place& place, int depth) const {
    return place.start + (ALONG ? static_cast<long long>(depth) * depth_stride : 0);
  }

  template <int N>
  __device__ __forceinline__ Pack<T, N> load(const Place& place, int depth, int end) const {
    const T* source = address(place, depth);
    if constexpr (WHOLE) {
      Pack<T, N> pack = {};
      if (depth < end) pack = *reinterpret_cast<const Pack<T, N>*>(source);
      return pack;
    } else {
      const int valid = ALONG ? (place.valid > 0 ? end - depth : 0) : (depth < end ? place.valid : 0);
      return load_stored<N>(source, valid, width, ALONG ? depth_stride : line_stride);
    }
  }

  __device__ __forceinline__ void advance(Place& place, int depth) const {
    if (!ALONG) place.start += static_cast<long long>(depth) * depth_stride;
  }
};

// A matrix of which the launch says whether it is WHOLE: there is a mainloop for each (gemm/product.cuh).  Its lines are
// neighbours; the stride along depth is a reference, since the mainloop needs the registers.
template <class T, int PACK = VECTOR<Accumulator<T>>>
struct Either {
  static constexpr bool ALONG_DEPTH = false;

  const T* data;
  const int &lines, &depth_stride;
  bool is_whole;

  template <bool WHOLE>
  __device__ __forceinline__ Strided<T, ALONG_DEPTH, WHOLE, PACK, const int&> as() const {
    return {data, lines, 1, depth_stride};
  }
};

template <class Source>
constexpr bool IS_EITHER = false;
template <class T, int PACK>
constexpr bool IS_EITHER<Either<T, PACK>> = true;
