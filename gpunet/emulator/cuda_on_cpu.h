// The CUDA language for a plain C++ compiler: this header is included before every .cu file.
//
// Every CUDA thread is a fiber, and blocks run one after another, so a static variable serves as shared memory.  Barriers
// and warp collectives call the runtime (runtime.h), which switches to other fibers.  In check mode the compiler also
// inserts a call of the runtime at every memory access.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "half.h"
#include "conversions.h"
#include "intrinsics.h"
#include "vector_types.h"

#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(...) __attribute__((aligned(__VA_ARGS__)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)  // compiler.py parses it
#define __grid_constant__
#define __managed__
// __constinit: no guard variables and no constructors; CUDA does not run constructors of shared variables either
#define __shared__ static __constinit
#define __CUDA_ARCH__ 900
#define GPUNET_EMULATOR 1

#define EMULATOR_UNCHECKED __attribute__((no_sanitize("thread", "undefined")))
#define EMULATOR_OUTLINE EMULATOR_UNCHECKED __attribute__((noinline))
#define EMULATOR_SITE emulator::Site site = {__builtin_FILE(), __builtin_LINE()}

// ---- the runtime -----------------------------------------------------------------------------------------------------

namespace emulator {

struct Site {  // a source line
  const char* file;
  int line;
};

struct Builtins {
  uint3 thread_index, block_index, block_size, grid_size;
};

enum class Collective : int { syncwarp, shuffle, ballot, reduce, ldmatrix, stmatrix, mma, elect };
enum class Vote : int { none, count, all, any };
enum class Access : int { read, write, atomic, float_atomic };

// Waits until every lane of `mask` has called it; the last one calls `exchange` with the `mine` of each lane.
using Exchange = void (*)(void** of_lane, unsigned int mask);
void warp_collective(unsigned int mask, Collective kind, Site site, void* mine, Exchange exchange);
int block_barrier(Site site, Vote vote, int predicate);
void access(const volatile void* address, size_t bytes, Access kind, void* return_address);
void begin_atomic(const volatile void* address, size_t bytes, Access kind, void* return_address);
void fence();
void copy_async(void* to, const void* from, int bytes, int valid, void* return_address);  // zero-fills after `valid` bytes
void commit_copies();
void wait_copies(int left);  // until at most the latest `left` committed groups are pending
void named_barrier(int number, int count, bool waits, Site site);
void load_matrices(unsigned int* registers, int count, bool transposed, const void* row, Site site, void* return_address);
void store_matrices(void* row, const unsigned int* registers, int count, bool transposed, Site site, void* return_address);
enum class Format : int { f16, bf16, tf32 };
void multiply(Format format, int depth, float* d, const unsigned int* a, const unsigned int* b, Site site);
// Accumulates in f16.
void multiply(Format format, int depth, unsigned int* d, const unsigned int* a, const unsigned int* b, Site site);
void multiply(double* d, double a, double b, Site site);
void yield_in_loop();  // runs other fibers; called in waiting loops
void poll();      // called for operations typical of waiting loops; runs other fibers at times
[[noreturn]] void fail(const char* kind, const char* format, ...) __attribute__((format(printf, 2, 3)));
int lane();
unsigned int lanes_of_warp();
void* dynamic_shared_memory();
long long clock();

}  // namespace emulator

#include "hopper.h"

// The runtime writes them at each fiber switch.  They are declared const because they are constant within a fiber: check mode
// then does not instrument their reads (it would for a type with constructors, such as dim3), and the compiler can keep them
// in registers.
extern "C" const emulator::Builtins emulator_builtins;
#define threadIdx emulator_builtins.thread_index
#define blockIdx emulator_builtins.block_index
#define blockDim emulator_builtins.block_size
#define gridDim emulator_builtins.grid_size
static constexpr int warpSize = 32;

namespace emulator {
// Called at the start of an entry point with __launch_bounds__: a GPU rejects launches with more threads.
template <class... Others>
EMULATOR_UNCHECKED inline __attribute__((always_inline)) void launch_bounds(unsigned int max_threads, Others...) {
  const unsigned int threads = blockDim.x * blockDim.y * blockDim.z;
  if (threads > max_threads)
    fail("launch bounds", "a block of %u threads, where the kernel declares __launch_bounds__(%u)", threads, max_threads);
}
}  // namespace emulator

// ---- barriers and fences ---------------------------------------------------------------------------------------------

inline void __syncthreads(EMULATOR_SITE) { emulator::block_barrier(site, emulator::Vote::none, 0); }
inline int __syncthreads_count(int p, EMULATOR_SITE) { return emulator::block_barrier(site, emulator::Vote::count, p); }
inline int __syncthreads_and(int p, EMULATOR_SITE) { return emulator::block_barrier(site, emulator::Vote::all, p); }
inline int __syncthreads_or(int p, EMULATOR_SITE) { return emulator::block_barrier(site, emulator::Vote::any, p); }
inline void __syncwarp(unsigned int mask = 0xffffffffu, EMULATOR_SITE) {
  emulator::warp_collective(mask, emulator::Collective::syncwarp, site, nullptr, nullptr);
}
inline void __threadfence() { emulator::fence(); }
inline void __threadfence_block() { emulator::fence(); }
inline void __threadfence_system() { emulator::fence(); }
inline void __nanosleep(unsigned int) { emulator::yield_in_loop(); }
inline long long clock64() { return emulator::clock(); }

// ---- warp collectives ------------------------------------------------------------------------------------------------

namespace emulator {

// Whether T is a floating-point type; toolkit.h adds the 16-bit types.
template <class T>
inline constexpr bool floating = std::is_floating_point_v<T>;

template <class T>
struct Shuffled {
  T value, result;
  int source;
};

template <class T>
EMULATOR_UNCHECKED void exchange_shuffled(void** of_lane, unsigned int mask) {
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1u)) continue;
    auto* mine = static_cast<Shuffled<T>*>(of_lane[lane]);
    if (!(mask >> mine->source & 1u))
      fail("divergence", "in a shuffle, lane %d reads lane %d, which is not in its mask %#x", lane, mine->source, mask);
    mine->result = static_cast<Shuffled<T>*>(of_lane[mine->source])->value;
  }
}

template <class T>
EMULATOR_UNCHECKED T shuffle(unsigned int mask, T value, int source, Site site) {
  static_assert(std::is_arithmetic_v<T> || floating<T>, "shuffles move numbers");
  Shuffled<T> mine{value, value, source};
  warp_collective(mask, Collective::shuffle, site, &mine, exchange_shuffled<T>);
  return mine.result;
}

EMULATOR_UNCHECKED inline void exchange_ballot(void** of_lane, unsigned int mask) {
  unsigned int votes = 0;
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1u && *static_cast<unsigned int*>(of_lane[lane])) votes |= 1u << lane;
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1u) *static_cast<unsigned int*>(of_lane[lane]) = votes;
}

template <class T>
struct Reduced {
  using Combine = T (*)(T, T);
  T value;
  Combine combine;
};

template <class T>
EMULATOR_UNCHECKED void exchange_reduced(void** of_lane, unsigned int mask) {
  bool any = false;
  T result{};
  for (int lane = 0; lane < 32; lane++) {
    if (!(mask >> lane & 1u)) continue;
    const auto* its = static_cast<Reduced<T>*>(of_lane[lane]);
    result = any ? its->combine(result, its->value) : its->value;
    any = true;
  }
  for (int lane = 0; lane < 32; lane++)
    if (mask >> lane & 1u) static_cast<Reduced<T>*>(of_lane[lane])->value = result;
}

template <class T>
EMULATOR_UNCHECKED T reduce(unsigned int mask, T value, typename Reduced<T>::Combine combine, Site site) {
  Reduced<T> mine{value, combine};
  warp_collective(mask, Collective::reduce, site, &mine, exchange_reduced<T>);
  return mine.value;
}

// Returns `source`, or the lane itself if `source` is outside its segment of `width` lanes.
inline int within(int source, int width) { return (source & ~(width - 1)) == (lane() & ~(width - 1)) ? source : lane(); }

}  // namespace emulator

template <class T>
inline T __shfl_sync(unsigned int mask, T value, int source, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(mask, value, (emulator::lane() & ~(width - 1)) + (source & (width - 1)), site);
}
template <class T>
inline T __shfl_up_sync(unsigned int mask, T value, unsigned int distance, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(mask, value, emulator::within(emulator::lane() - static_cast<int>(distance), width), site);
}
template <class T>
inline T __shfl_down_sync(unsigned int mask, T value, unsigned int distance, int width = 32, EMULATOR_SITE) {
  return emulator::shuffle(mask, value, emulator::within(emulator::lane() + static_cast<int>(distance), width), site);
}
template <class T>  // may read lanes of an earlier segment, but not of a later one
inline T __shfl_xor_sync(unsigned int mask, T value, int bits, int width = 32, EMULATOR_SITE) {
  const int lane = emulator::lane(), source = lane ^ bits;
  return emulator::shuffle(mask, value, source < lane ? source : emulator::within(source, width), site);
}
EMULATOR_UNCHECKED inline unsigned int __ballot_sync(unsigned int mask, int predicate, EMULATOR_SITE) {
  unsigned int votes = predicate != 0;
  emulator::warp_collective(mask, emulator::Collective::ballot, site, &votes, emulator::exchange_ballot);
  return votes;
}
inline int __any_sync(unsigned int mask, int predicate, EMULATOR_SITE) { return __ballot_sync(mask, predicate, site) != 0; }
inline int __all_sync(unsigned int mask, int predicate, EMULATOR_SITE) {
  return __ballot_sync(mask, predicate, site) == (mask & emulator::lanes_of_warp());
}
inline unsigned int __activemask() { return emulator::lanes_of_warp(); }

// ---- atomics: only one fiber runs at a time, so plain reads and writes are atomic ----------------------------------------

namespace emulator {
template <class T>
EMULATOR_UNCHECKED inline bool same_bits_in_memory(const T& a, const T& b) { return memcmp(&a, &b, sizeof a) == 0; }

template <class T, class Change>
EMULATOR_OUTLINE T atomic(T* address, Change change) {
  const bool order_matters = floating<T> && Change::rounds;
  begin_atomic(address, sizeof(T), order_matters ? Access::float_atomic : Access::atomic, __builtin_return_address(0));
  const T old = *address, changed = change(old);
  *address = changed;
  if (same_bits_in_memory(old, changed)) poll();
  return old;
}
template <class T, class Function>
struct Change : Function {
  static constexpr bool rounds = false;
  T operator()(T old) const { return static_cast<T>(Function::operator()(old)); }
};
template <class T>
struct Add {
  static constexpr bool rounds = true;
  T value;
  T operator()(T old) const { return static_cast<T>(old + value); }
};
template <class T, class Function>
inline __attribute__((always_inline)) T atomically(T* address, Function function) {
  return atomic(address, Change<T, Function>{function});
}
}  // namespace emulator

#define EMULATOR_ATOMIC(name, expression)                                       \
  template <class T>                                                            \
  inline __attribute__((always_inline)) T name(T* address, std::common_type_t<T> value) { \
    return emulator::atomically(address, [value](T old) { return expression; }); \
  }
EMULATOR_ATOMIC(atomicMax, old < value ? value : old)
EMULATOR_ATOMIC(atomicMin, value < old ? value : old)
EMULATOR_ATOMIC(atomicExch, (static_cast<void>(old), value))
EMULATOR_ATOMIC(atomicAnd, old & value)
EMULATOR_ATOMIC(atomicOr, old | value)
EMULATOR_ATOMIC(atomicXor, old ^ value)
EMULATOR_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
EMULATOR_ATOMIC(atomicDec, old == T(0) || old > value ? value : T(old - 1))
#undef EMULATOR_ATOMIC
template <class T>
inline __attribute__((always_inline)) T atomicAdd(T* address, std::common_type_t<T> value) {
  return emulator::atomic(address, emulator::Add<T>{value});
}
template <class T>
inline __attribute__((always_inline)) T atomicSub(T* address, std::common_type_t<T> value) {
  return emulator::atomic(address, emulator::Add<T>{T(-value)});
}
template <class T>
inline __attribute__((always_inline)) T atomicCAS(T* address, std::common_type_t<T> expected, std::common_type_t<T> value) {
  return emulator::atomically(address, [=](T old) { return old == expected ? value : old; });
}

// ---- the entry point of a specialisation -----------------------------------------------------------------------------

namespace emulator {

struct Extents {
  unsigned int x = 1, y = 1, z = 1;
};

struct Parameter {  // same layout as Parameter in library.py
  int bytes;
  char kind;           // of the value or of the pointer's element: f, i, u, b, B for bfloat16, or V for anything else
  char pointer;        // 1 for a pointer
  char constant;       // 1 for a pointer to const
  char element_bytes;  // size of the pointer's element
};

template <class T>
constexpr char kind_of() {
  if (std::is_same_v<T, bool>) return 'b';
  if (std::is_floating_point_v<T>) return 'f';
  if (std::is_integral_v<T>) return std::is_signed_v<T> ? 'i' : 'u';
  return 'V';
}

template <class T>
constexpr Parameter describe() {
  if constexpr (std::is_pointer_v<T>) {
    using Element = std::remove_pointer_t<T>;
    if constexpr (std::is_void_v<Element>) return {sizeof(T), 'V', 1, std::is_const_v<Element>, 1};
    else return {sizeof(T), kind_of<std::remove_cv_t<Element>>(), 1, std::is_const_v<Element>, sizeof(Element)};
  } else {
    return {sizeof(T), kind_of<T>(), 0, 0, 0};
  }
}

template <class... Arguments, size_t... INDEX>
EMULATOR_UNCHECKED void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<INDEX...>) {
  kernel(*static_cast<std::remove_reference_t<Arguments>*>(arguments[INDEX])...);
}
template <class... Arguments>
EMULATOR_UNCHECKED void call(void (*kernel)(Arguments...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<Arguments...>{});
}
template <class... Arguments>
int describe_all(void (*)(Arguments...), Parameter* parameters) {
  const Parameter all[] = {describe<Arguments>()..., {}};
  if (parameters) memcpy(parameters, all, sizeof(Parameter) * sizeof...(Arguments));
  return sizeof...(Arguments);
}

}  // namespace emulator

// NUMBER tells the exports of several specialisations in one library apart.
#define EMULATOR_CLUSTER(NUMBER, ...) \
  extern "C" __attribute__((visibility("default"))) const emulator::Extents emulator_cluster_##NUMBER = {__VA_ARGS__};
#define EMULATOR_VARIABLE(NUMBER, ...) \
  extern "C" __attribute__((visibility("default"))) const void* const emulator_variable_##NUMBER = &__VA_ARGS__;
#define EMULATOR_EXPORT(NUMBER, ...)                                                                                      \
  extern "C" __attribute__((visibility("default"))) EMULATOR_UNCHECKED void emulator_entry_##NUMBER(void** arguments) {  \
    emulator::call(&__VA_ARGS__, arguments);                                                                              \
  }                                                                                                                       \
  extern "C" __attribute__((visibility("default"))) EMULATOR_UNCHECKED int emulator_parameters_##NUMBER(                 \
      emulator::Parameter* all) {                                                                                         \
    return emulator::describe_all(&__VA_ARGS__, all);                                                                     \
  }
