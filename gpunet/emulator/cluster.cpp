// Clusters: their barrier, and access to other blocks' shared memory.

#include "runtime.h"

namespace emulator {

struct ClusterBarrier {
  int missing;                  // running threads that have not arrived in this phase
  std::vector<char> arrived;    // for each thread: whether it is between its arrival and its wait
  std::vector<uint32_t> phase;  // for each thread: the phase in which it arrived
  uint32_t number;              // of the current phase
  Order arrived_order, released;  // what was published in this phase; until the end of the last phase
  std::vector<int> waiting;
};

static ClusterBarrier barrier;

void reset_cluster() {
  const size_t threads = static_cast<size_t>(thread_count);
  barrier = {block_threads * cluster_size, std::vector<char>(threads), std::vector<uint32_t>(threads), 0, {}, {}, {}};
}

static void complete_phase_if_done() {
  if (barrier.missing) return;
  barrier.number++;
  for (int rank = 0; rank < cluster_size; rank++) barrier.missing += running[rank];
  barrier.released = barrier.arrived_order;
  std::vector<int> waiting;
  waiting.swap(barrier.waiting);
  wake_all(waiting);
}

void cluster_arrive(Site site) {
  const int me = current->thread;
  if (barrier.arrived[me])
    fail("divergence", "a second cluster_arrive at %s:%d without a cluster_wait in between", site.file, site.line);
  barrier.arrived[me] = true;
  barrier.phase[me] = barrier.number;
  if (launch->check) publish(barrier.arrived_order, me);
  barrier.missing--;
  complete_phase_if_done();
}

void cluster_wait(Site site) {
  const int me = current->thread;
  if (!barrier.arrived[me]) fail("divergence", "a cluster_wait at %s:%d without a cluster_arrive before", site.file, site.line);
  if (barrier.phase[me] == barrier.number) {
    barrier.waiting.push_back(me);
    wait("cluster_wait", site);
  } else {
    yield_fiber();
  }
  barrier.arrived[me] = false;
  if (launch->check) acquire(barrier.released, me);
}

// The cluster barrier does not wait for threads that have returned.
void leave_cluster() {
  const int me = current->thread;
  if (barrier.arrived[me] && barrier.phase[me] == barrier.number) return;
  barrier.missing--;
  complete_phase_if_done();
}

unsigned int cluster_rank() { return static_cast<unsigned int>(current->rank); }
unsigned int cluster_blocks() { return static_cast<unsigned int>(cluster_size); }

static uintptr_t site_of(void* caller) { return reinterpret_cast<uintptr_t>(caller) - launch->library; }

void* map_shared(void* mine, unsigned int rank, void* caller) {
  if (rank >= static_cast<unsigned int>(cluster_size))
    fail("cluster", "block %u requested at @%#zx; the cluster has %d blocks", rank, site_of(caller), cluster_size);
  const int owner = rank_of_shared(reinterpret_cast<uintptr_t>(mine));
  if (owner < 0 && cluster_size > 1) fail("cluster", "at @%#zx: the address is not in dynamic shared memory", site_of(caller));
  return owner < 0 ? mine : shared_memory_of(static_cast<int>(rank)) + (static_cast<char*>(mine) - shared_memory_of(owner));
}

unsigned int shared_offset(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer);
  const int owner = rank_of_shared(address);
  if (owner < 0) fail("shared memory", "the emulator supports wgmma operands in dynamic shared memory only");
  return static_cast<unsigned int>(address - reinterpret_cast<uintptr_t>(shared_memory_of(owner)));
}

}  // namespace emulator
