// PTX instructions without a C++ equivalent, one function each.
//
// Only this file, hopper.cuh and half.cuh contain inline PTX.  Every function has two bodies: PTX for a GPU, and a call of
// the emulator (gpunet/emulator), which does the same on the CPU.  Register layouts are those of the PTX ISA, "warp level
// matrix instructions": `group` is lane / 4, `member` is lane % 4, and a register of two halves has the element of the lower
// row or column in its lower half.
//
//   cp_async*                 global to shared memory, sm_80+
//   ldmatrix*                 sm_75+      stmatrix*   sm_90+
//   mma_*                     f16 with depth 8 sm_75+, all others sm_80+
//   bar_*                     sm_75+      redux_*     sm_80+
//   griddepcontrol_*          sm_90+, a no-op before
//   conversions               round to nearest, ties to even; to tf32 (sm_80+) ties away from zero

#include "half.cuh"

// EITHER(code for the emulator, code for a GPU)
#ifdef GPUNET_EMULATOR
// Not inlined, so that the return address is the line in the kernel.
#define PRIMITIVE static EMULATOR_OUTLINE
#define CALLER __builtin_return_address(0)
#define SITE , EMULATOR_SITE
#define EITHER(emulated, ...) emulated
#else
#define PRIMITIVE static __device__ __forceinline__
#define SITE
#define EITHER(emulated, ...) __VA_ARGS__
__device__ __forceinline__ unsigned int shared_address(const void* pointer) {
  return static_cast<unsigned int>(__cvta_generic_to_shared(pointer));
}
#endif

// Whether the architecture has the instructions of sm_80.
#if __CUDA_ARCH__ >= 800
constexpr bool IS_SM_80 = true;
#else
constexpr bool IS_SM_80 = false;
#endif

// ---- pairs of 16-bit numbers ------------------------------------------------------------------------------------------

// Packs two numbers into a register, `low` in the lower half.
PRIMITIVE unsigned int pack_f16(float low, float high) {
#if __CUDA_ARCH__ >= 800 && !defined(GPUNET_EMULATOR)
  unsigned int pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return float_to_f16(low) | static_cast<unsigned int>(float_to_f16(high)) << 16;
#endif
}
PRIMITIVE unsigned int pack_bf16(float low, float high) {
#if __CUDA_ARCH__ >= 800 && !defined(GPUNET_EMULATOR)
  unsigned int pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return float_to_bf16(low) | static_cast<unsigned int>(float_to_bf16(high)) << 16;
#endif
}
__device__ __forceinline__ float2 unpack_f16(unsigned int pair) {
  return {f16_to_float(static_cast<unsigned short>(pair)), f16_to_float(static_cast<unsigned short>(pair >> 16))};
}
__device__ __forceinline__ float2 unpack_bf16(unsigned int pair) {
  return {bf16_to_float(static_cast<unsigned short>(pair)), bf16_to_float(static_cast<unsigned short>(pair >> 16))};
}

// Rounds to tf32, a float32 whose lower 13 bits are zero: the format of the operands of mma_*_tf32.
PRIMITIVE unsigned int float_to_tf32(float value) {
  EITHER(return emulator::tf32_of(value),
         unsigned int bits; asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value)); return bits);
}

// ---- asynchronous copies ---------------------------------------------------------------------------------------------
//
// A copy is visible to the issuing thread once that thread has waited for its group, and to other threads after a
// subsequent barrier.  The first `valid` of BYTES bytes are copied and the rest are set to zero; with valid 0, `from` is not
// read.  Both addresses are multiples of BYTES.

// 4, 8 or 16 bytes, through the L1 cache.
template <int BYTES>
PRIMITIVE void cp_async(void* to, const void* from, int valid = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
  EITHER(emulator::copy_async(to, from, BYTES, valid, CALLER),
         asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES),
                      "r"(valid) : "memory"));
}
// 16 bytes, bypassing the L1 cache: for data that is read once.
PRIMITIVE void cp_async_cg(void* to, const void* from, int valid = 16) {
  EITHER(emulator::copy_async(to, from, 16, valid, CALLER),
         asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid)
                      : "memory"));
}
// Commits the thread's copies since the last commit as a group, which may be empty.
PRIMITIVE void cp_async_commit() {
  EITHER(emulator::commit_copies(), asm volatile("cp.async.commit_group;" ::: "memory"));
}
// Waits for all but the thread's latest LEFT groups.
template <int LEFT>
PRIMITIVE void cp_async_wait() {
  EITHER(emulator::wait_copies(LEFT), asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"));
}
// Waits for all of the thread's copies, committed or not.
PRIMITIVE void cp_async_wait_all() {
  EITHER(emulator::commit_copies(); emulator::wait_copies(0), asm volatile("cp.async.wait_all;" ::: "memory"));
}

// ---- matrices of 8 x 8 16-bit elements ---------------------------------------------------------------------------------
//
// Lanes 8 i to 8 i + 7 pass the addresses of the rows of matrix i: 16 bytes in shared memory, at a multiple of 16.
// Register i of a lane contains two elements of matrix i: row `group`, columns 2 member and 2 member + 1; if transposed,
// rows 2 member and 2 member + 1 of column `group`.  All 32 lanes must call these functions.

template <int N>
PRIMITIVE void ldmatrix(unsigned int (&r)[N], const void* row SITE) {
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
  EITHER(
      emulator::load_matrices(r, N, false, row, site, CALLER),
      const unsigned int p = shared_address(row);
      if constexpr (N == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(p) : "memory");
      else if constexpr (N == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(p) : "memory");
      else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(p) : "memory"));
}
template <int N>
PRIMITIVE void ldmatrix_trans(unsigned int (&r)[N], const void* row SITE) {
  static_assert(N == 1 || N == 2 || N == 4, "ldmatrix loads 1, 2 or 4 matrices");
  EITHER(
      emulator::load_matrices(r, N, true, row, site, CALLER),
      const unsigned int p = shared_address(row);
      if constexpr (N == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(r[0]) : "r"(p) : "memory");
      else if constexpr (N == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(r[0]), "=r"(r[1]) : "r"(p) : "memory");
      else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(p) : "memory"));
}
template <int N>
PRIMITIVE void stmatrix(void* row, const unsigned int (&r)[N] SITE) {
  static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
  EITHER(
      emulator::store_matrices(row, r, N, false, site, CALLER),
      const unsigned int p = shared_address(row);
      if constexpr (N == 1)
        asm volatile("stmatrix.sync.aligned.m8n8.x1.shared.b16 [%0], {%1};" ::"r"(p), "r"(r[0]) : "memory");
      else if constexpr (N == 2)
        asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1, %2};" ::"r"(p), "r"(r[0]), "r"(r[1]) : "memory");
      else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(p), "r"(r[0]), "r"(r[1]),
                     "r"(r[2]), "r"(r[3]) : "memory"));
}
template <int N>
PRIMITIVE void stmatrix_trans(void* row, const unsigned int (&r)[N] SITE) {
  static_assert(N == 1 || N == 2 || N == 4, "stmatrix stores 1, 2 or 4 matrices");
  EITHER(
      emulator::store_matrices(row, r, N, true, site, CALLER),
      const unsigned int p = shared_address(row);
      if constexpr (N == 1)
        asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(p), "r"(r[0]) : "memory");
      else if constexpr (N == 2)
        asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(p), "r"(r[0]), "r"(r[1])
                     : "memory");
      else
        asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(p), "r"(r[0]),
                     "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory"));
}

// ---- matrix multiply and accumulate ------------------------------------------------------------------------------------
//
// d += a b for a (16, depth), b (depth, 8), d (16, 8).  All 32 lanes must call these functions.
//   d    float: d[i] is row group + 8 (i / 2), column 2 member + i % 2; f16: d[i] is row group + 8 i, both columns
//   16 bits: a[i] is row group + 8 (i % 2), columns 2 member + 8 (i / 2) and the next; b[i] is rows 2 member + 8 i and the
//        next, column group
//   tf32: a[i] is row group + 8 (i % 2), column member + 4 (i / 2); b[i] is row member + 4 i, column group
// The emulator computes exact products and adds them to d in the order of depth, rounding each sum to the nearest float32
// (and to f16 at the end if d is f16).  A GPU's order and rounding are not documented: compare within a tolerance.

#define MMA_OF_2_AND_1(name, format, depth, instruction)                                                                \
  PRIMITIVE void name(float (&d)[4], const unsigned int (&a)[2], const unsigned int (&b)[1] SITE) {                     \
    EITHER(emulator::multiply(emulator::Format::format, depth, d, a, b, site),                                          \
           asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"                              \
                        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                \
                        : "r"(a[0]), "r"(a[1]), "r"(b[0])));                                                            \
  }
#define MMA_OF_4_AND_2(name, format, depth, instruction)                                                                \
  PRIMITIVE void name(float (&d)[4], const unsigned int (&a)[4], const unsigned int (&b)[2] SITE) {                     \
    EITHER(emulator::multiply(emulator::Format::format, depth, d, a, b, site),                                          \
           asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                  \
                        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                \
                        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));                           \
  }
MMA_OF_2_AND_1(mma_m16n8k8_f16, f16, 8, "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32")
MMA_OF_4_AND_2(mma_m16n8k16_f16, f16, 16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")
MMA_OF_2_AND_1(mma_m16n8k8_bf16, bf16, 8, "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32")
MMA_OF_4_AND_2(mma_m16n8k16_bf16, bf16, 16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")
MMA_OF_2_AND_1(mma_m16n8k4_tf32, tf32, 4, "mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32")
MMA_OF_4_AND_2(mma_m16n8k8_tf32, tf32, 8, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
#undef MMA_OF_2_AND_1
#undef MMA_OF_4_AND_2

PRIMITIVE void mma_m16n8k8_f16(unsigned int (&d)[2], const unsigned int (&a)[2], const unsigned int (&b)[1] SITE) {
  EITHER(emulator::multiply(emulator::Format::f16, 8, d, a, b, site),
         asm volatile("mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3}, {%4}, {%0, %1};"
                      : "+r"(d[0]), "+r"(d[1]) : "r"(a[0]), "r"(a[1]), "r"(b[0])));
}
PRIMITIVE void mma_m16n8k16_f16(unsigned int (&d)[2], const unsigned int (&a)[4], const unsigned int (&b)[2] SITE) {
  EITHER(emulator::multiply(emulator::Format::f16, 16, d, a, b, site),
         asm volatile("mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16 {%0, %1}, {%2, %3, %4, %5}, {%6, %7}, {%0, %1};"
                      : "+r"(d[0]), "+r"(d[1]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])));
}
// a (8, 4), b (4, 8), d (8, 8): a is row group, column member; b is row member, column group; d[i] is row group, column
// 2 member + i.  Each step of depth is a fused multiply-add.
PRIMITIVE void mma_m8n8k4_f64(double (&d)[2], double a, double b SITE) {
  EITHER(emulator::multiply(d, a, b, site),
         asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
                      : "+d"(d[0]), "+d"(d[1]) : "d"(a), "d"(b)));
}

// ---- named barriers ----------------------------------------------------------------------------------------------------
//
// A block has barriers 0 to 15; __syncthreads is barrier 0.  `count` threads, a multiple of 32, take part.  Whole warps
// either wait (sync) or only arrive (arrive).  The memory accesses of all participants before the barrier are visible to
// those that waited.

PRIMITIVE void bar_sync(int barrier, int count SITE) {
  EITHER(emulator::named_barrier(barrier, count, true, site),
         asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(count) : "memory"));
}
PRIMITIVE void bar_arrive(int barrier, int count SITE) {
  EITHER(emulator::named_barrier(barrier, count, false, site),
         asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(count) : "memory"));
}

// ---- reductions over the lanes of a mask -------------------------------------------------------------------------------

#define REDUX(name, T, operation, emulated)                                                                             \
  PRIMITIVE T name(unsigned int mask, T value SITE) {                                                                   \
    EITHER(return emulator::reduce(mask, value, [](T a, T b) -> T { return emulated; }, site),                          \
           T result; asm volatile("redux.sync." operation " %0, %1, %2;" : "=r"(result) : "r"(value), "r"(mask));       \
           return result);                                                                                              \
  }
REDUX(redux_add, unsigned int, "add.u32", a + b)
REDUX(redux_min, unsigned int, "min.u32", a < b ? a : b)
REDUX(redux_max, unsigned int, "max.u32", a > b ? a : b)
REDUX(redux_add, int, "add.s32", static_cast<int>(static_cast<unsigned int>(a) + static_cast<unsigned int>(b)))
REDUX(redux_min, int, "min.s32", a < b ? a : b)
REDUX(redux_max, int, "max.s32", a > b ? a : b)
REDUX(redux_and, unsigned int, "and.b32", a & b)
REDUX(redux_or, unsigned int, "or.b32", a | b)
REDUX(redux_xor, unsigned int, "xor.b32", a ^ b)
#undef REDUX

// ---- programmatic dependent launch -------------------------------------------------------------------------------------

// Waits until the preceding grids in the stream have completed and their writes are visible.
PRIMITIVE void griddepcontrol_wait() {
#if __CUDA_ARCH__ >= 900 && !defined(GPUNET_EMULATOR)
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next grid start once all blocks of this one have called this or exited; the code after it may overlap that grid.
PRIMITIVE void griddepcontrol_launch_dependents() {
#if __CUDA_ARCH__ >= 900 && !defined(GPUNET_EMULATOR)
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
