// Instructions of compute capability 9.0: mbarriers, bulk and tensor copies (TMA), clusters, and wgmma (sm_90a only).
// One function per instruction.  Only this file and primitives.cuh contain inline PTX and emulator-specific code.
//
// In the emulator the functions are not inlined, so that findings name the line in the kernel.

#include "primitives.cuh"

#ifdef GPUNET_EMULATOR
#define shared_address(pointer) emulator::shared_offset(pointer)
#define ONLY_SITE EMULATOR_SITE
#else
#define ONLY_SITE
#endif

// ---- mbarriers -------------------------------------------------------------------------------------------------------
//
// A phase completes after `arrivals` arrivals and once all expected bytes have been written; then the next phase begins.
// The first phase has parity 0, so waiting for parity 1 on a new barrier returns immediately.

typedef unsigned long long MBarrier;  // opaque, in shared memory

PRIMITIVE void mbarrier_init(MBarrier* barrier, int arrivals) {
  EITHER(emulator::mbarrier_init(barrier, arrivals, CALLER),
         asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory"));
}

// Invalidates a barrier: its memory may then be reused.
PRIMITIVE void mbarrier_inval(MBarrier* barrier) {
  EITHER(emulator::mbarrier_inval(barrier, CALLER),
         asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(barrier)) : "memory"));
}

// Makes initialised mbarriers visible to the cluster and to asynchronous copies; must be followed by a thread barrier.
PRIMITIVE void fence_mbarrier_init() {
  EITHER(emulator::fence_mbarrier_init(),
         asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"));
}

// Arrives once, with release semantics.
PRIMITIVE void mbarrier_arrive(MBarrier* barrier) {
  EITHER(emulator::mbarrier_arrive(barrier, 1, 0, CALLER),
         asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory"));
}

// Adds `bytes` to the bytes that asynchronous copies must write in this phase, then arrives once.
PRIMITIVE void mbarrier_arrive_expect_tx(MBarrier* barrier, int bytes) {
  EITHER(emulator::mbarrier_arrive(barrier, 1, bytes, CALLER),
         asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                      : "memory"));
}

// Adds `bytes` to the expected bytes of this phase, without an arrival.
PRIMITIVE void mbarrier_expect_tx(MBarrier* barrier, int bytes) {
  EITHER(emulator::mbarrier_arrive(barrier, 0, bytes, CALLER),
         asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                      : "memory"));
}

// Arrives once at the barrier at the same shared-memory offset in block `rank` of the cluster.
PRIMITIVE void mbarrier_arrive_remote(MBarrier* barrier, unsigned int rank) {
  EITHER(emulator::mbarrier_arrive(emulator::map_shared(barrier, rank, CALLER), 1, 0, CALLER),
         asm volatile(
             "{\n.reg .b32 remote;\n"
             "mapa.shared::cluster.u32 remote, %0, %1;\n"
             "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(barrier)), "r"(rank)
             : "memory"));
}

// The same, but orders only asynchronous operations that this thread has waited for, not the thread's own reads and writes:
// so it needs no cluster-scope release fence.
PRIMITIVE void mbarrier_arrive_remote_async(MBarrier* barrier, unsigned int rank) {
  EITHER(emulator::mbarrier_arrive_async(emulator::map_shared(barrier, rank, CALLER), CALLER),
           asm volatile(
               "{\n.reg .b32 remote;\n"
               "mapa.shared::cluster.u32 remote, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(shared_address(barrier)), "r"(rank)
               : "memory"));
}

// Returns whether the phase of this parity has completed; the hardware may suspend the thread before returning false.
PRIMITIVE bool mbarrier_try_wait(MBarrier* barrier, int parity) {
  EITHER(return emulator::mbarrier_try_wait(barrier, parity, CALLER),
         unsigned int over;
         asm volatile(
             "{\n.reg .pred over;\n"
             "mbarrier.try_wait.parity.shared::cta.b64 over, [%1], %2;\n"
             "selp.u32 %0, 1, 0, over;\n}"
             : "=r"(over) : "r"(shared_address(barrier)), "r"(parity) : "memory");
       return over);
}

// Waits until the phase of this parity has completed, with acquire semantics at block scope.
PRIMITIVE void mbarrier_wait(MBarrier* barrier, int parity SITE) {
  EITHER(emulator::mbarrier_wait(barrier, parity, false, site, CALLER),
         asm volatile(
             "{\n.reg .pred over;\n"
             "again:\n"
             "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
             "@!over bra again;\n}" ::"r"(shared_address(barrier)), "r"(parity)
             : "memory"));
}

// The same, with acquire semantics at cluster scope.
PRIMITIVE void mbarrier_wait_cluster(MBarrier* barrier, int parity SITE) {
  EITHER(emulator::mbarrier_wait(barrier, parity, true, site, CALLER),
         asm volatile(
             "{\n.reg .pred over;\n"
             "again:\n"
             "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n"
             "@!over bra again;\n}" ::"r"(shared_address(barrier)), "r"(parity)
             : "memory"));
}

// Proxy fence: writes that this thread made or observed become visible to asynchronous copies and wgmma; the first function
// covers the block's shared memory, the second all memory.
PRIMITIVE void fence_proxy_async_shared() {
  EITHER(emulator::proxy_fence_shared(), asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
}
PRIMITIVE void fence_proxy_async() {
  EITHER(emulator::proxy_fence(),
         asm volatile("fence.proxy.async;" ::: "memory"));
}

// ---- clusters --------------------------------------------------------------------------------------------------------
//
// A kernel declared with __cluster_dims__ has clusters; otherwise each block is a cluster of one.

// Rank of this block in its cluster, x fastest.
PRIMITIVE unsigned int cluster_rank() {
  EITHER(return emulator::cluster_rank(),
         unsigned int rank; asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank)); return rank);
}
PRIMITIVE unsigned int cluster_blocks() {
  EITHER(return emulator::cluster_blocks(),
         unsigned int count; asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(count)); return count);
}

// Barrier of all threads of the cluster: memory accesses before the arrival are ordered before those after the wait.
PRIMITIVE void cluster_arrive(ONLY_SITE) {
  EITHER(emulator::cluster_arrive(site),
         asm volatile("barrier.cluster.arrive.release;" ::: "memory"));
}
PRIMITIVE void cluster_wait(ONLY_SITE) {
  EITHER(emulator::cluster_wait(site),
         asm volatile("barrier.cluster.wait.acquire;" ::: "memory"));
}

// Maps an address in this block's shared memory to the same offset in block `rank`; the result is a generic pointer.
template <class T>
PRIMITIVE T* map_shared(T* mine, unsigned int rank) {
  EITHER(return static_cast<T*>(emulator::map_shared(mine, rank, CALLER)),
         T* theirs;
         asm("mapa.u64 %0, %1, %2;" : "=l"(theirs) : "l"(mine), "r"(rank));
       return theirs);
}

// ---- bulk copies -----------------------------------------------------------------------------------------------------
//
// Issued by one thread.  A load reports the bytes it has written to an mbarrier; a store belongs to the thread's current
// bulk group.  Addresses and sizes are multiples of 16 bytes.

PRIMITIVE void bulk_load(void* to, const void* from, int bytes, MBarrier* barrier) {
  EITHER(emulator::bulk_load(to, from, bytes, barrier, CALLER),
         asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                      ::"r"(shared_address(to)),
                      "l"(from), "r"(bytes), "r"(shared_address(barrier))
                      : "memory"));
}

PRIMITIVE void bulk_store(void* to, const void* from, int bytes) {
  EITHER(emulator::bulk_store(to, from, bytes, CALLER),
         asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(shared_address(from)),
                      "r"(bytes)
                      : "memory"));
}

// Commits this thread's stores since the last commit as a group.
PRIMITIVE void bulk_commit() {
  EITHER(emulator::bulk_commit(),
         asm volatile("cp.async.bulk.commit_group;" ::: "memory"));
}

// Waits until all but this thread's latest `PENDING` groups have completed their writes.
template <int PENDING>
PRIMITIVE void bulk_wait() {
  EITHER(emulator::bulk_wait(PENDING, false),
         asm volatile("cp.async.bulk.wait_group %0;" ::"n"(PENDING) : "memory"));
}

// Waits until all but the latest `PENDING` groups have completed their reads: shared memory may then be overwritten.
template <int PENDING>
PRIMITIVE void bulk_wait_read() {
  EITHER(emulator::bulk_wait(PENDING, true),
         asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(PENDING) : "memory"));
}

// ---- tensor copies (TMA) ---------------------------------------------------------------------------------------------
//
// They copy a box of a tensor between global and shared memory.  In shared memory the box is dense, innermost dimension
// first, at a multiple of 128 bytes (and of the swizzle's pattern, 8 times its span).  Swizzles of 128, 64 and 32 bytes XOR
// bits 4-6, 4-5 and 4 of an address with its bits 7-9, 7-8 and 7.  Coordinates are those of the box's first element,
// innermost first.  Elements outside the tensor are read as 0 and not written.

struct __align__(64) TensorMap {  // made by gpunet.backend.tensor_map; declare it const __grid_constant__ TensorMap
  unsigned long long opaque[16];
};

PRIMITIVE void prefetch_tensor_map(const TensorMap* map) {
  EITHER(emulator::prefetch_tensor_map(map, CALLER),
         asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"));
}

#ifndef GPUNET_EMULATOR
// COPY(rank, the coordinates in the assembler text, the coordinates as operands); D0, D1, ... are the operand numbers
#define EACH_DIMENSION(COPY, D0, D1, D2, D3, D4)                                                                       \
  if constexpr (DIMENSIONS == 1) COPY("1d", "{%" #D0 "}", "r"(at[0]))                                                   \
  if constexpr (DIMENSIONS == 2) COPY("2d", "{%" #D0 ", %" #D1 "}", "r"(at[0]), "r"(at[1]))                             \
  if constexpr (DIMENSIONS == 3) COPY("3d", "{%" #D0 ", %" #D1 ", %" #D2 "}", "r"(at[0]), "r"(at[1]), "r"(at[2]))       \
  if constexpr (DIMENSIONS == 4)                                                                                       \
    COPY("4d", "{%" #D0 ", %" #D1 ", %" #D2 ", %" #D3 "}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]))              \
  if constexpr (DIMENSIONS == 5)                                                                                       \
    COPY("5d", "{%" #D0 ", %" #D1 ", %" #D2 ", %" #D3 ", %" #D4 "}", "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]))
#endif

// tensor_load(tile, &map, {x, y}, &barrier) reports the bytes of the whole box to the barrier, also outside the tensor.
template <int DIMENSIONS>
PRIMITIVE void tensor_load(void* to, const TensorMap* map, const int (&at)[DIMENSIONS], MBarrier* barrier) {
#ifdef GPUNET_EMULATOR
  emulator::tensor_load(to, map, at, DIMENSIONS, barrier, 0, CALLER);
#else
#define COPY(RANK, COORDINATES, ...)                                                                             \
  asm volatile("cp.async.bulk.tensor." RANK ".shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, " COORDINATES \
               "], [%2];" ::"r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), __VA_ARGS__ : "memory");
  EACH_DIMENSION(COPY, 3, 4, 5, 6, 7)
#undef COPY
#endif
}

// Loads to the same offset in each block of the cluster whose bit in `blocks` is set, and reports to the barrier there.
template <int DIMENSIONS>
PRIMITIVE void tensor_load_multicast(void* to, const TensorMap* map, const int (&at)[DIMENSIONS], MBarrier* barrier,
                                     unsigned short blocks) {
#ifdef GPUNET_EMULATOR
  emulator::tensor_load(to, map, at, DIMENSIONS, barrier, blocks, CALLER);
#else
#define COPY(RANK, COORDINATES, ...)                                                                               \
  asm volatile("cp.async.bulk.tensor." RANK                                                                       \
               ".shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, " COORDINATES \
               "], [%2], %3;" :: \
                   "r"(shared_address(to)), "l"(map), "r"(shared_address(barrier)), "h"(blocks), __VA_ARGS__ : "memory");
  EACH_DIMENSION(COPY, 4, 5, 6, 7, 8)
#undef COPY
#endif
}

// The store belongs to the thread's current bulk group: see bulk_commit and bulk_wait.
template <int DIMENSIONS>
PRIMITIVE void tensor_store(const TensorMap* map, const int (&at)[DIMENSIONS], const void* from) {
#ifdef GPUNET_EMULATOR
  emulator::tensor_store(map, at, DIMENSIONS, from, CALLER);
#else
#define COPY(RANK, COORDINATES, ...)                                                                          \
  asm volatile("cp.async.bulk.tensor." RANK ".global.shared::cta.bulk_group [%0, " COORDINATES "], [%1];" ::"l"(map), \
               "r"(shared_address(from)), __VA_ARGS__ : "memory");
  EACH_DIMENSION(COPY, 2, 3, 4, 5, 6)
#undef COPY
#endif
}
#undef EACH_DIMENSION

// ---- warps -----------------------------------------------------------------------------------------------------------

// Returns true in exactly one lane of a full warp, always the same one.
PRIMITIVE bool elect_one(ONLY_SITE) {
  EITHER(return emulator::elect_one(site),
         unsigned int elected;
         asm volatile(
             "{\n.reg .pred elected;\n"
             "elect.sync _|elected, 0xffffffff;\n"
             "selp.u32 %0, 1, 0, elected;\n}"
             : "=r"(elected)::"memory");
       return elected);
}

// Changes the registers per thread of the warpgroup: increasing waits until registers are available.
#define SET_REGISTERS(name, instruction)                                                                         \
  template <int REGISTERS>                                                                                       \
  PRIMITIVE void name(ONLY_SITE) {                                                                               \
    static_assert(REGISTERS % 8 == 0 && 24 <= REGISTERS && REGISTERS <= 256, "a multiple of 8 from 24 to 256");   \
    EITHER(emulator::set_registers(REGISTERS, site), asm volatile(instruction ".sync.aligned.u32 %0;" ::"n"(REGISTERS))); \
  }
SET_REGISTERS(set_more_registers, "setmaxnreg.inc")
SET_REGISTERS(set_fewer_registers, "setmaxnreg.dec")
#undef SET_REGISTERS

// ---- wgmma -----------------------------------------------------------------------------------------------------------
//
// The four warps of a warpgroup multiply A (64 x K) by B (K x N) into 64 x N accumulators, asynchronously.  K is 16 for F16
// and BF16, and 8 for TF32 (float32 bits, of which the lower 13 are ignored; tensor copies round them away where the
// TensorMap was made with tf32=True).
//
// Accumulator register i of lane l in warp w is row 16 w + l / 4 + 8 (i / 2 % 2), column 8 (i / 4) + 2 (l % 4) + i % 2.
// A in registers has four words: word i belongs to row 16 w + l / 4 + 8 (i % 2) and contains columns 8 (i / 2) + 2 (l % 4)
// and the next one in its lower and upper half; for TF32 it is column 4 (i / 2) + l % 4.
//
// In shared memory an operand consists of rows of `Swizzle` bytes (16 without swizzle) along its contiguous dimension; eight
// consecutive rows are a group.  The swizzle is that of the tensor copies.  K-major (K is contiguous): `stride` is the
// distance in bytes between groups of 8 rows of M or N; `leading`, used only without swizzle, is the distance between the
// first and second 16 bytes of K.  MN-major: a row runs along M or N, and a group is 8 steps of K; `leading` is the distance
// to the continuation of a row along M or N, `stride` between groups along K; without swizzle the two are exchanged.

enum class Swizzle { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };
enum class Format { F16, BF16, TF32 };
enum class Major { K, MN };

__device__ __forceinline__ unsigned long long matrix_descriptor(const void* matrix, Swizzle swizzle, int leading, int stride) {
  const auto field = [](unsigned int bytes) { return static_cast<unsigned long long>((bytes & 0x3ffff) >> 4); };
  const unsigned long long code = static_cast<unsigned long long>(swizzle);
  return field(shared_address(matrix)) | field(leading) << 16 | field(stride) << 32 | code << 62;
}

// Required before the first wgmma, and after other instructions have written the accumulators or A's registers.
PRIMITIVE void wgmma_fence() {
  EITHER(emulator::wgmma_fence(),
         asm volatile("wgmma.fence.sync.aligned;" ::: "memory"));
}
PRIMITIVE void wgmma_commit(ONLY_SITE) {
  EITHER(emulator::wgmma_commit(site),
         asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"));
}

// Waits until all but the latest `PENDING` groups have completed: their operands may then be overwritten.
template <int PENDING>
PRIMITIVE void wgmma_wait() {
  EITHER(emulator::wgmma_wait(PENDING), asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory"));
}

// The same, for accumulators `d`: the compiler may not read or write their registers before this wait.
template <int PENDING, int COUNT>
PRIMITIVE void wgmma_wait(float (&d)[COUNT]) {
  wgmma_wait<PENDING>();
#ifndef GPUNET_EMULATOR
#pragma unroll
  for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");  // orders accesses to d after the wait
#endif
}

#ifndef GPUNET_EMULATOR
#define REGISTERS_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define REGISTERS_8(i) REGISTERS_4(i), REGISTERS_4(i + 4)
#define REGISTERS_16(i) REGISTERS_8(i), REGISTERS_8(i + 8)
#define REGISTERS_32(i) REGISTERS_16(i), REGISTERS_16(i + 16)
#define REGISTERS_48(i) REGISTERS_32(i), REGISTERS_16(i + 32)
#define REGISTERS_64(i) REGISTERS_32(i), REGISTERS_32(i + 32)
#define REGISTERS_96(i) REGISTERS_64(i), REGISTERS_32(i + 64)
#define REGISTERS_128(i) REGISTERS_64(i), REGISTERS_64(i + 64)
#define NAMES_4 "%0,%1,%2,%3"
#define NAMES_8 NAMES_4 ",%4,%5,%6,%7"
#define NAMES_16 NAMES_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_32 NAMES_16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_48 NAMES_32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NAMES_64 NAMES_48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NAMES_96                                                                               \
  NAMES_64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"                  \
           ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define NAMES_128                                                                              \
  NAMES_96 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"      \
           ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// SHAPE(N, accumulators per thread, operand numbers after the accumulators)
#define EACH_SHAPE(SHAPE)                                                                      \
  SHAPE(8, 4, 4, 5, 6, 7, 8, 9, 10) SHAPE(16, 8, 8, 9, 10, 11, 12, 13, 14)                     \
  SHAPE(32, 16, 16, 17, 18, 19, 20, 21, 22) SHAPE(64, 32, 32, 33, 34, 35, 36, 37, 38)          \
  SHAPE(96, 48, 48, 49, 50, 51, 52, 53, 54) SHAPE(128, 64, 64, 65, 66, 67, 68, 69, 70)         \
  SHAPE(192, 96, 96, 97, 98, 99, 100, 101, 102) SHAPE(256, 128, 128, 129, 130, 131, 132, 133, 134)
#endif

// d = A B, or d += A B if `accumulate`; a and b are matrix descriptors.
template <Format FORMAT, int N, Major MAJOR_A = Major::K, Major MAJOR_B = Major::K>
PRIMITIVE void wgmma(float (&d)[N / 2], unsigned long long a, unsigned long long b, bool accumulate SITE) {
  constexpr int A_MN = MAJOR_A == Major::MN, B_MN = MAJOR_B == Major::MN;
  static_assert(FORMAT != Format::TF32 || !(A_MN || B_MN), "TF32 operands are K-major");
#ifdef GPUNET_EMULATOR
  emulator::wgmma(d, N, static_cast<int>(FORMAT), nullptr, a, A_MN, b, B_MN, accumulate, site, CALLER);
#else
#define WITH(SHAPE, TYPE, COUNT, A, B, ACCUMULATE, MAJORS, ...)                                               \
  asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #ACCUMULATE ", 0;\n"                    \
               "wgmma.mma_async.sync.aligned.m64n" SHAPE ".f32." TYPE "." TYPE " {" NAMES_##COUNT "}, %" #A ", %" #B \
               ", accumulate, 1, 1" MAJORS ";\n}" : REGISTERS_##COUNT(0)                                      \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)) __VA_ARGS__ : "memory");
#define SHAPE(WIDTH, COUNT, P0, P1, P2, P3, P4, P5, P6)                                                        \
  if constexpr (N == WIDTH && FORMAT == Format::F16)                                                          \
    WITH(#WIDTH "k16", "f16", COUNT, P0, P1, P2, ", %" #P3 ", %" #P4, , "n"(A_MN), "n"(B_MN))                   \
  if constexpr (N == WIDTH && FORMAT == Format::BF16)                                                         \
    WITH(#WIDTH "k16", "bf16", COUNT, P0, P1, P2, ", %" #P3 ", %" #P4, , "n"(A_MN), "n"(B_MN))                  \
  if constexpr (N == WIDTH && FORMAT == Format::TF32) WITH(#WIDTH "k8", "tf32", COUNT, P0, P1, P2, "")
  EACH_SHAPE(SHAPE)
#undef SHAPE
#undef WITH
#endif
}

// The same, with A in registers.
template <Format FORMAT, int N, Major MAJOR_B = Major::K>
PRIMITIVE void wgmma(float (&d)[N / 2], const unsigned int (&a)[4], unsigned long long b, bool accumulate SITE) {
  constexpr int B_MN = MAJOR_B == Major::MN;
  static_assert(FORMAT != Format::TF32 || !B_MN, "TF32 operands are K-major");
#ifdef GPUNET_EMULATOR
  emulator::wgmma(d, N, static_cast<int>(FORMAT), a, 0, false, b, B_MN, accumulate, site, CALLER);
#else
#define WITH(SHAPE, TYPE, COUNT, A0, A1, A2, A3, B, ACCUMULATE, MAJOR, ...)                                   \
  asm volatile("{\n.reg .pred accumulate;\nsetp.ne.b32 accumulate, %" #ACCUMULATE ", 0;\n"                    \
               "wgmma.mma_async.sync.aligned.m64n" SHAPE ".f32." TYPE "." TYPE " {" NAMES_##COUNT             \
               "}, {%" #A0 ",%" #A1 ",%" #A2 ",%" #A3 "}, %" #B ", accumulate, 1, 1" MAJOR ";\n}" : REGISTERS_##COUNT(0) \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)) __VA_ARGS__ : "memory");
#define SHAPE(WIDTH, COUNT, P0, P1, P2, P3, P4, P5, P6)                                                        \
  if constexpr (N == WIDTH && FORMAT == Format::F16)                                                          \
    WITH(#WIDTH "k16", "f16", COUNT, P0, P1, P2, P3, P4, P5, ", %" #P6, , "n"(B_MN))                            \
  if constexpr (N == WIDTH && FORMAT == Format::BF16)                                                         \
    WITH(#WIDTH "k16", "bf16", COUNT, P0, P1, P2, P3, P4, P5, ", %" #P6, , "n"(B_MN))                           \
  if constexpr (N == WIDTH && FORMAT == Format::TF32) WITH(#WIDTH "k8", "tf32", COUNT, P0, P1, P2, P3, P4, P5, "")
  EACH_SHAPE(SHAPE)
#undef SHAPE
#undef WITH
#endif
}
