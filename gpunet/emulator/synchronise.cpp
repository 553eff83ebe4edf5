// Barriers, warp collectives, fences and atomics.

#include "runtime.h"

#include <stdio.h>
#include <string.h>

#include <algorithm>

namespace emulator {

struct PendingCollective {  // a warp collective that waits for lanes
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

struct NamedBarrier {
  int count, arrived;  // threads that take part; threads that have arrived
  Site site;           // of the first arrival
  unsigned int lanes[MAX_THREADS / 32];
  std::vector<int> waiting;
  Order order;
  char text[48];
};

constexpr int NAMED_BARRIERS = 16;

static std::vector<PendingCollective> pending_collectives[MAX_THREADS / 32];
static Barrier barriers[MAX_CLUSTER];  // __syncthreads of each block
static NamedBarrier named_barriers[MAX_CLUSTER][NAMED_BARRIERS];
static int polls;

void reset_synchronisation() {
  for (auto& of_warp : pending_collectives) of_warp.clear();
  for (Barrier& barrier : barriers) barrier = {};
  for (auto& of_block : named_barriers)
    for (NamedBarrier& other : of_block) other.arrived = 0;
}

static bool same(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// ---- warps -----------------------------------------------------------------------------------------------------------

static const char* name(Collective kind) {
  static const char* const names[] = {"__syncwarp", "shuffle", "vote", "reduction", "ldmatrix", "stmatrix", "mma", "elect_one"};
  return names[static_cast<int>(kind)];
}

void warp_collective(unsigned int mask, Collective kind, Site site, void* mine, Exchange exchange) {
  const int my_lane = lane(), warp = current->thread / 32;
  if (!(mask >> my_lane & 1u))
    fail("divergence", "lane %d calls the %s of %s:%d, but is not in its mask %#x", my_lane, name(kind), site.file, site.line, mask);
  mask &= lanes_of_warp();  // remove lanes that the block does not have
  auto& of_warp = pending_collectives[warp];
  size_t at = 0;
  while (at < of_warp.size() && !(of_warp[at].mask & mask)) at++;
  if (at == of_warp.size()) of_warp.push_back({mask, 0, kind, site, {}});
  PendingCollective& pending = of_warp[at];
  if (pending.kind != kind || pending.mask != mask || !same(pending.site, site))
    fail("divergence", "lanes %#x of warp %d are at the %s of %s:%d with mask %#x, but lane %d is at the %s of %s:%d with mask %#x",
         pending.arrived, warp, name(pending.kind), pending.site.file, pending.site.line, pending.mask, my_lane, name(kind),
         site.file, site.line, mask);
  pending.arrived |= 1u << my_lane;
  pending.of_lane[my_lane] = mine;
  if (pending.arrived != mask) {
    wait(name(kind), site);
    return;
  }
  void* of_lane[32];
  memcpy(of_lane, pending.of_lane, sizeof of_lane);
  of_warp.erase(of_warp.begin() + static_cast<long>(at));
  if (exchange) exchange(of_lane, mask);
  static std::vector<int> threads;
  threads.clear();
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1u) threads.push_back(warp * 32 + l);
  if (linting() && mask == lanes_of_warp()) lint_warp(warp);
  if (launch->check && kind == Collective::syncwarp) order_threads(threads);  // shuffles and votes do not order memory
  threads.erase(std::find(threads.begin(), threads.end(), current->thread));
  wake_all(threads);
}

// ---- blocks ----------------------------------------------------------------------------------------------------------

static void check_barrier_0_use() {  // __syncthreads is barrier 0
  const Barrier& barrier = barriers[current->rank];
  const NamedBarrier* named = named_barriers[current->rank];
  if (barrier.arrived && named[0].arrived)
    fail("divergence", "barrier 0 is used by the __syncthreads of %s:%d and by the bar of %s:%d at once", barrier.site.file,
         barrier.site.line, named[0].site.file, named[0].site.line);
}

static int threads_expected(int rank) { return launch->returned_pass ? running[rank] : block_threads; }

// Ends the round of a block's barrier, at which all the threads that it returns have arrived.
static std::vector<int> pass_barrier(int rank) {
  Barrier& barrier = barriers[rank];
  launch->barriers++;
  barrier.arrived = 0;
  std::vector<int> threads;
  for (int first = first_thread(rank), thread = first; thread < first + block_threads; thread++) {
    if (fibers[thread].finished) continue;
    fibers[thread].vote = barrier.result;
    threads.push_back(thread);
  }
  if (linting()) lint_block();
  if (launch->check && cluster_size == 1) order_all_threads();
  if (launch->check && cluster_size > 1) order_threads(threads);
  return threads;
}

int block_barrier(Site site, Vote vote, int predicate) {
  Barrier& barrier = barriers[current->rank];
  if (!barrier.arrived) barrier = {0, site, vote, vote == Vote::all};
  if (!same(barrier.site, site))
    fail("divergence", "%d threads are at the __syncthreads of %s:%d, but thread %d is at that of %s:%d", barrier.arrived,
         barrier.site.file, barrier.site.line, index_in_block(current->thread), site.file, site.line);
  if (vote == Vote::count) barrier.result += predicate != 0;
  if (vote == Vote::all) barrier.result &= predicate != 0;
  if (vote == Vote::any) barrier.result |= predicate != 0;
  barrier.arrived++;
  check_barrier_0_use();
  if (barrier.arrived < threads_expected(current->rank)) {
    wait("__syncthreads", site);
    return current->vote;
  }
  std::vector<int> others = pass_barrier(current->rank);
  others.erase(std::find(others.begin(), others.end(), current->thread));
  wake_all(others);
  yield_fiber();  // if the last thread to arrive always continued first, some races would not be found
  return current->vote;
}

void leave_block(int rank) {
  const int arrived = barriers[rank].arrived;
  if (launch->returned_pass && arrived && arrived == running[rank]) wake_all(pass_barrier(rank));
}

// ---- named barriers --------------------------------------------------------------------------------------------------

static void complete_named_barrier(int number, NamedBarrier& barrier) {
  for (int warp = 0; warp < (thread_count + 31) / 32; warp++)
    if (barrier.lanes[warp] && barrier.lanes[warp] != 0xffffffffu)
      fail("divergence", "only lanes %#x of warp %d arrived at barrier %d of %s:%d; whole warps must take part",
           barrier.lanes[warp], warp, number, barrier.site.file, barrier.site.line);
  launch->barriers++;
  barrier.arrived = 0;
  if (launch->check)
    for (int thread : barrier.waiting) acquire(barrier.order, thread);
}

void named_barrier(int number, int count, bool waits, Site site) {
  const int me = current->thread;
  if (number < 0 || number >= NAMED_BARRIERS)
    fail("barrier", "there is no barrier %d at %s:%d: a block has 0 to %d", number, site.file, site.line, NAMED_BARRIERS - 1);
  if (count <= 0 || count % 32 || count > block_threads)
    fail("barrier", "barrier %d of %s:%d is for %d threads; expected a multiple of 32 up to the %d of the block", number, site.file,
         site.line, count, block_threads);
  NamedBarrier& barrier = named_barriers[current->rank][number];
  if (!barrier.arrived) {
    barrier.count = count;
    barrier.site = site;
    barrier.waiting.clear();
    barrier.order = {};
    memset(barrier.lanes, 0, sizeof barrier.lanes);
  }
  if (barrier.count != count)
    fail("barrier", "barrier %d is for %d threads at %s:%d, but for %d at %s:%d", number, barrier.count, barrier.site.file,
         barrier.site.line, count, site.file, site.line);
  if (barrier.lanes[me / 32] >> me % 32 & 1u)
    fail("barrier", "%s arrives at barrier %d a second time, at %s:%d, before all %d threads have arrived", thread_title(me),
         number, site.file, site.line, count);
  barrier.lanes[me / 32] |= 1u << me % 32;
  barrier.arrived++;
  if (number == 0) check_barrier_0_use();
  snprintf(barrier.text, sizeof barrier.text, "barrier %d (for %d threads, %d arrived)", number, count, barrier.arrived);
  if (launch->check) publish(barrier.order, me);
  if (waits) barrier.waiting.push_back(me);
  if (barrier.arrived < count) {
    if (waits) wait(barrier.text, site);
    return;
  }
  complete_named_barrier(number, barrier);
  std::vector<int> others;
  for (int thread : barrier.waiting)
    if (thread != me) others.push_back(thread);
  wake_all(others);
  yield_fiber();
}

// ---- fences and atomics ----------------------------------------------------------------------------------------------

// Called for a volatile read, or an atomic that changed nothing: many of them are a loop that waits for another thread.
void poll() {
  if (++polls % 64 == 0) yield_in_loop();
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
