// Values out of range, such as an index: a kernel cannot raise, so it leaves a record for the host (gpunet/launch/faults.py).
//
// record: code, value, position, size, detail; code is 0 as long as there is no error, and FAULT_BUSY while one is written.

enum { FAULT_BUSY = -1 };

// Record the first bad value of a launch, unless an earlier launch has recorded one.  All 32 lanes of a warp that found a
// bad value call it with the same arguments; of all these warps the one records before whose position nothing is bad, so the
// record does not depend on the order in which they run.  `is_bad(p)` tells whether the value at position p is bad.
template <class IsBad>
__device__ __noinline__ void report_first(
    long long* record, long long position, IsBad is_bad, long long code, long long value, long long size, long long detail) {
  const unsigned int all = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  unsigned long long* state = reinterpret_cast<unsigned long long*>(record);
  for (long long start = 0; start < position; start += 32) {
    const bool is_earlier_bad = start + lane < position && is_bad(start + lane);
    const bool is_recorded = lane == 0 && atomicCAS(state, 0ull, 0ull) != 0;
    if (__any_sync(all, is_earlier_bad || is_recorded)) return;
  }
  if (lane == 0 && atomicCAS(state, 0ull, static_cast<unsigned long long>(FAULT_BUSY)) == 0) {
    record[1] = value;
    record[2] = position;
    record[3] = size;
    record[4] = detail;
    __threadfence();
    atomicExch(state, static_cast<unsigned long long>(code));
  }
}
