// Channels of x (n, c, s), images of c channels of s elements: sums over the n s elements of a channel, and elementwise work.
//
// A block of 256 threads sums a tile of CHANNELS channels: 32 if s is small, so that neighbouring threads read neighbouring
// channels, or one.  The elements of a channel are divided into slices, one for each blockIdx.y.  A block leaves the results of
// its slice in `partials`; the last block of a tile combines them in order.

#include "divisor.cuh"
#include "pack.cuh"
#include "reduce.cuh"

struct Extents {
  int n, c, s;
};

// The place of a pack of four elements of a channel: image and element in it of the first one, and the number of elements.
struct Place {
  long long image;
  int element, valid;
};

template <int CHANNELS>
struct ChannelTile {
  static constexpr int MEMBERS = 256 / CHANNELS;  // threads of a channel
  Extents of;
  int slices;

  __device__ int channel() const { return blockIdx.x * CHANNELS + threadIdx.x % CHANNELS; }
  __device__ static int member() { return threadIdx.x / CHANNELS; }

  // Calls body(place) for every pack of the slice that is this thread's.  A pack of one channel lies in one image.
  template <class Body>
  __device__ __forceinline__ void for_each(Body body) const {
    if (channel() >= of.c) return;
    const int packs_per_image = (of.s + 3u) / 4;
    const long long elements = static_cast<long long>(of.n) * of.s;
    const long long packs = CHANNELS == 1 ? static_cast<long long>(of.n) * packs_per_image : (elements + 3) / 4;
    const long long per_slice = (packs + slices - 1) / slices;
    const long long first = blockIdx.y * per_slice, end = first + per_slice < packs ? first + per_slice : packs;
    for (long long pack = first + member(); pack < end; pack += MEMBERS) {
      Place place;
      if (CHANNELS == 1) {
        place.image = quotient(pack, packs_per_image);
        place.element = 4 * static_cast<int>(pack - place.image * packs_per_image);
        place.valid = of.s - place.element;
      } else {
        place.image = quotient(4 * pack, of.s);
        place.element = static_cast<int>(4 * pack - place.image * of.s);
        place.valid = elements - 4 * pack < 4 ? static_cast<int>(elements - 4 * pack) : 4;
      }
      body(place);
    }
  }

  // The image of an element of a pack.
  __device__ __forceinline__ long long image(const Place& place, int e) const {
    return CHANNELS == 1 ? place.image : place.image + (place.element + e) / of.s;
  }

  // The elements of a pack; those from `valid` on are zero.  `width` is the access width of rows of s elements.
  template <class T>
  __device__ __forceinline__ Pack<Accumulator<T>, 4> load(const T* x, const Place& place, int width) const {
    const T* from = x + (place.image * of.c + channel()) * of.s;
    if (CHANNELS == 1) return load_pack<4>(from + place.element, place.valid, width);
    Pack<Accumulator<T>, 4> pack;
    int element = place.element;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      pack.v[e] = e < place.valid ? Accumulator<T>(from[element]) : Accumulator<T>(0);
      if (++element == of.s) {
        element = 0;
        from += static_cast<long long>(of.c) * of.s;
      }
    }
    return pack;
  }

  // Combines the results of a channel's threads, and of its slices, in a fixed order.  Returns true in the one thread of each
  // channel that then has the result; if there are several slices, that is in the last block of the tile.
  //
  // `Result` has COUNT numbers of type A, and merge(other), for a result of later elements.
  template <class Result, class A>
  __device__ __forceinline__ bool combine(Result& result, A* partials, unsigned int* tickets) const {
    __shared__ A shared[Result::COUNT][256];
    store(result, &shared[0][threadIdx.x], 256);
    for (int distance = MEMBERS / 2; distance > 0; distance /= 2) {
      __syncthreads();
      if (member() < distance) {
        Result other;
#pragma unroll
        for (int i = 0; i < Result::COUNT; i++) other.v[i] = shared[i][threadIdx.x + distance * CHANNELS];
        result.merge(other);
        store(result, &shared[0][threadIdx.x], 256);
      }
    }
    const bool has_result = member() == 0 && channel() < of.c;
    if (slices == 1) return has_result;
    if (has_result) store(result, partials + blockIdx.y * Result::COUNT * static_cast<long long>(of.c) + channel(), of.c);
    if (!is_last(tickets + blockIdx.x, slices) || !has_result) return false;
    result = Result();
    for (int slice = 0; slice < slices; slice++) {
      Result other;
#pragma unroll
      for (int i = 0; i < Result::COUNT; i++)  // __ldcg bypasses the L1 cache, as in sum_of_partials
        other.v[i] = __ldcg(partials + (slice * Result::COUNT + i) * static_cast<long long>(of.c) + channel());
      result.merge(other);
    }
    return true;
  }

 private:
  template <class Result, class A>
  __device__ __forceinline__ static void store(const Result& result, A* to, long long stride) {
#pragma unroll
    for (int i = 0; i < Result::COUNT; i++) to[i * stride] = result.v[i];
  }
};

// Calls body(start, valid, channels) for every pack of four neighbouring elements of x, in a grid-stride loop; channels[e] is
// the channel of element e.
template <class Body>
__device__ __forceinline__ void for_each_pack_of_channels(const Extents& of, Body body) {
  for_each_pack(static_cast<long long>(of.n) * of.c * of.s, [&](long long start, long long valid) {
    const long long row = quotient(start, of.s);
    int element = static_cast<int>(start - row * of.s), channel = static_cast<int>(row - quotient(row, of.c) * of.c);
    int channels[4];
#pragma unroll
    for (int e = 0; e < 4; e++) {
      channels[e] = channel;
      if (++element == of.s) {
        element = 0;
        if (++channel == of.c) channel = 0;
      }
    }
    body(start, valid, channels);
  });
}
