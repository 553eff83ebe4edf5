// Barriers, warp collectives, fences and atomics: who waits for whom, and what that orders.

#include "runtime.h"

#include <string.h>

#include <algorithm>

namespace emulator {

struct Meeting {  // of the lanes of a warp
  unsigned int mask, arrived;
  Collective kind;
  Site site;
  void* of_lane[32];
};

struct Barrier {
  int arrived;
  Site site;
  Vote vote;
  int result;
};

static std::vector<Meeting> meetings[MOST_THREADS / 32];
static Barrier barrier;
static int polls;

void reset_synchronisation() {
  for (auto& of_warp : meetings) of_warp.clear();
  barrier = {};
}

static bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// ---- warps -----------------------------------------------------------------------------------------------------------

static const char* name(Collective kind) {
  static const char* const names[] = {"__syncwarp", "shuffle", "vote", "reduction"};
  return names[static_cast<int>(kind)];
}

void warp_collective(unsigned int mask, Collective kind, Site site, void* mine, Exchange exchange) {
  const int my_lane = lane(), warp = current->thread / 32;
  if (!(mask >> my_lane & 1u))
    fail("divergence", "lane %d calls the %s of %s:%d, but is not in its mask %#x", my_lane, name(kind), site.file, site.line, mask);
  mask &= lanes_of_warp();  // lanes that the launch does not have
  auto& of_warp = meetings[warp];
  size_t at = 0;
  while (at < of_warp.size() && !(of_warp[at].mask & mask)) at++;
  if (at == of_warp.size()) of_warp.push_back({mask, 0, kind, site, {}});
  Meeting& meeting = of_warp[at];
  if (meeting.kind != kind || meeting.mask != mask || !same(meeting.site, site))
    fail("divergence", "lanes %#x of warp %d are at the %s of %s:%d with mask %#x, but lane %d is at the %s of %s:%d with mask %#x",
         meeting.arrived, warp, name(meeting.kind), meeting.site.file, meeting.site.line, meeting.mask, my_lane, name(kind),
         site.file, site.line, mask);
  meeting.arrived |= 1u << my_lane;
  meeting.of_lane[my_lane] = mine;
  if (meeting.arrived != mask) {
    current->collective = kind;
    wait(Waits::warp, site);
    return;
  }
  void* of_lane[32];
  memcpy(of_lane, meeting.of_lane, sizeof of_lane);
  of_warp.erase(of_warp.begin() + static_cast<long>(at));
  if (exchange) exchange(of_lane, mask);
  static std::vector<int> threads;
  threads.clear();
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1u) threads.push_back(warp * 32 + l);
  if (linting() && mask == lanes_of_warp()) lint_warp(warp);
  if (launch->check && kind == Collective::syncwarp) order_threads(threads);  // shuffles and votes order no memory
  threads.erase(std::find(threads.begin(), threads.end(), current->thread));
  wake_all(threads);
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

int block_barrier(Site site, Vote vote, int predicate) {
  if (!barrier.arrived) barrier = {0, site, vote, vote == Vote::all};
  if (!same(barrier.site, site))
    fail("divergence", "%d threads are at the __syncthreads of %s:%d, but thread %d is at that of %s:%d", barrier.arrived,
         barrier.site.file, barrier.site.line, current->thread, site.file, site.line);
  if (vote == Vote::count) barrier.result += predicate != 0;
  if (vote == Vote::all) barrier.result &= predicate != 0;
  if (vote == Vote::any) barrier.result |= predicate != 0;
  if (++barrier.arrived < thread_count) {
    wait(Waits::block, site);
    return current->vote;
  }
  launch->barriers++;
  barrier.arrived = 0;
  if (launch->check) order_block();
  static std::vector<int> others;
  others.clear();
  for (int thread = 0; thread < thread_count; thread++) {
    fibers[thread].vote = barrier.result;
    if (thread != current->thread) others.push_back(thread);
  }
  wake_all(others);
  let_others_run();  // if the last to arrive always went on first, skew between threads would hide
  return current->vote;
}

// ---- fences and atomics ----------------------------------------------------------------------------------------------

// An atomic that changed nothing, a volatile read: many of them are a loop that waits for another thread.
void poll() {
  if (++polls % 64 == 0) give_way();
}

void fence() {
  if (launch->check) order_fence();
}

void begin_atomic(const volatile void* address, size_t bytes, Access kind, void* return_address) {
  if (!launch->check) return;
  access(address, bytes, kind, return_address);
  order_atomic(reinterpret_cast<uintptr_t>(address));
}

}  // namespace emulator
