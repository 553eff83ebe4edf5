// Pages of allocations, and pages that nobody may touch.
//
// Each kind of memory has an address range of its own.  An allocation has pages of its own.  They lie apart from others, with
// pages between them that nobody may touch; freed memory becomes such pages, and its addresses are not used again.  So an access
// beyond an allocation's last page, or to freed memory, is a fault that faults.cpp turns into CUDA_ERROR_ILLEGAL_ADDRESS.
//
// Linux limits the number of maps of a process (65530 by default), and each run of pages in use takes two: its own and that of
// the pages behind it.  So from kMostApart runs on, new allocations lie side by side: an access beyond the last page of one of
// these may reach the next one.  Memory that is freed between them splits a run; from kMostRuns on it is poisoned instead.
#include <string.h>
#include <sys/mman.h>

#include <iterator>

#include "driver.h"

namespace driver {
namespace {

constexpr size_t kPage = 4096, kAlignment = 512, kRange = size_t{1} << 42;
constexpr size_t kMostApart = 8192, kMostRuns = 24576;
constexpr int kPoison = 0xa5;  // in each byte of new memory
constexpr size_t kMostPoisoned = 64 << 20;  // larger allocations begin as zeros, which the system gives

std::map<uintptr_t, uintptr_t> runs;  // of pages in use: begin and end

class Range {  // of addresses
 public:
  // New pages, side by side with the last ones if `gap` is 0; 0 if there are none.
  uintptr_t take(size_t pages, size_t gap) {
    if (!next_) {
      void* memory = mmap(nullptr, kRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (memory == MAP_FAILED) return 0;
      next_ = reinterpret_cast<uintptr_t>(memory);
      end_ = next_ + kRange;
    }
    const uintptr_t begin = next_ + gap;
    if (end_ - next_ < pages + gap || mprotect(reinterpret_cast<void*>(begin), pages, PROT_READ | PROT_WRITE)) return 0;
    next_ = begin + pages;
    const auto after = runs.upper_bound(begin);
    if (after != runs.begin() && std::prev(after)->second == begin)
      std::prev(after)->second = next_;
    else
      runs[begin] = next_;
    return begin;
  }

 private:
  uintptr_t next_ = 0, end_ = 0;
};
Range device_ranges[kMaxDevices], managed_range, host_range;

Range& range_of(Kind kind, int device) {
  return kind == Kind::device ? device_ranges[device] : kind == Kind::managed ? managed_range : host_range;
}
}  // namespace

void poison(void* memory, size_t bytes) {
  if (bytes <= kMostPoisoned) memset(memory, kPoison, bytes);
}

uintptr_t take_memory(Kind kind, int device, size_t bytes) {
  if (bytes >= kRange) return 0;
  const size_t pages = (bytes + kPage - 1) / kPage * kPage;
  const uintptr_t first_page = range_of(kind, device).take(pages, runs.size() < kMostApart ? kGap : 0);
  // The end lies as close to the end of its page as the alignment allows.
  return first_page ? first_page + pages - (bytes + kAlignment - 1) / kAlignment * kAlignment : 0;
}

void give_back_memory(uintptr_t address, size_t bytes) {
  const uintptr_t begin = address / kPage * kPage, end = (address + bytes + kPage - 1) / kPage * kPage;
  const auto run = std::prev(runs.upper_bound(begin));
  const uintptr_t run_begin = run->first, run_end = run->second;
  if (run_begin < begin && end < run_end && runs.size() >= kMostRuns) return poison(reinterpret_cast<void*>(address), bytes);
  // A new map joins those beside it.
  if (mmap(reinterpret_cast<void*>(begin), end - begin, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) ==
      MAP_FAILED)
    return poison(reinterpret_cast<void*>(address), bytes);
  runs.erase(run);
  if (run_begin < begin) runs[run_begin] = begin;
  if (end < run_end) runs[end] = run_end;
}

}  // namespace driver
