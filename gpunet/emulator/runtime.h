// Declarations shared by the files of the runtime.
//
//   scheduler.cpp    fibers, schedules, blocks, the launch
//   synchronise.cpp  barriers, warp collectives, fences, atomics
//   clocks.cpp       check mode: vector clocks
//   checker.cpp      check mode: races, bounds, uninitialised shared memory
//   lint.cpp         check mode: counts bank conflicts and global memory sectors, if requested
//   tensor_core.cpp  mma, ldmatrix, stmatrix
//   asynchronous.cpp asynchronous transfers and their completion; cp.async
//   mbarrier.cpp, cluster.cpp, bulk.cpp, wgmma.cpp   the instructions of hopper.cuh, see hopper.h
//   division.cpp     integer division as on a GPU
//   callbacks.cpp    functions that the compiler's sanitizers call
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

#include "fiber.h"
// last, because its macros would clash with the system's headers
#include "cuda_on_cpu.h"

namespace emulator {

constexpr int MAX_CLUSTER = 8, MAX_THREADS = 1024 * MAX_CLUSTER, MAX_ENGINES = 32;
constexpr size_t SHARED_STRIDE = 256 << 10;  // bytes between the dynamic shared memory of consecutive blocks of a cluster

enum class Schedule : int { depth_first, reversed, random, breadth_first };
enum class Completion : int { eager, lazy };

struct Fiber {
  Context context;
  uint3 index;
  int thread;         // number among the threads of the cluster: first_thread(rank) + number in its block
  int rank;           // rank of its block in the cluster
  bool finished;
  const char* waits;  // description of what it waits for; null if it can run
  void* waits_for;    // the mbarrier that it waits for, if any
  Site site;          // the line where it waits
  int vote;           // result of its last barrier
};

struct Array {  // same layout as _Array in launch.py
  void* address;
  uint64_t bytes;
  int element_bytes;  // 0 if unknown
  int shared;         // whether it is shared memory, which is uninitialised at the start of every block
  int written;        // whether the kernel may write to it
  const char* name;
};

struct Launch {  // same layout as _Launch in launch.py
  void (*entry)(void**);
  void** arguments;
  unsigned int grid[3], block[3], cluster[3];
  unsigned int shared_bytes, seed;
  int schedule, completion, check;  // check: 0 fast mode, 1 check mode, 2 with lint
  int returned_pass;                // whether __syncthreads passes over threads that have returned, as a GPU does
  int unset_allowed;                // whether reads of uninitialised shared memory are no findings
  int array_count, message_bytes;
  const Array* arrays;
  char* message;
  uint64_t library;  // load address of the kernel's library; sites are relative to it
  uint64_t switches, barriers, accesses, transfers;
};

// ---- scheduler.cpp ---------------------------------------------------------------------------------------------------

extern Launch* launch;
extern Fiber* fibers;
extern Fiber* current;
// The blocks of a cluster run concurrently; clusters run one after another.  Without __cluster_dims__ a cluster is one block.
extern int cluster_size;            // blocks in a cluster
extern int block_threads;           // threads in a block
extern int thread_count;            // thread numbers in a cluster; with several blocks, each block starts at a multiple of 32
extern int running[MAX_CLUSTER];   // unfinished threads of each block
extern int block_slots;             // thread numbers per block
extern uint32_t cluster_number;     // of the running cluster

void wait(const char* what, Site site);  // suspends the current fiber until another one wakes it
void yield_fiber();               // runs all other runnable fibers before the current one continues
void wake(int thread);
void wake_all(const std::vector<int>& threads);  // in the order of the schedule
bool on_a_stack(uintptr_t address);
int first_thread(int rank);                  // number of a block's first thread
int index_in_block(int thread);              // a thread's number in its block
const char* thread_title(int thread);        // "thread 5", with its block if there are several; valid for 4 calls
uint32_t block_in_grid(uint32_t cluster, int rank);  // linear index of a block in the grid
char* shared_memory_of(int rank);            // dynamic shared memory of a block
int rank_of_shared(uintptr_t address);       // the block whose dynamic shared memory contains the address; -1 for none
uint32_t random_number();

// ---- synchronise.cpp -------------------------------------------------------------------------------------------------

void reset_synchronisation();  // before each cluster
void leave_block(int rank);    // the current thread returns

// ---- asynchronous.cpp ------------------------------------------------------------------------------------------------
//
// An asynchronous instruction starts a Transfer.  Its data moves when it is started ("eager") or when it completes
// ("lazy"): the earliest and the latest moment that a GPU may choose.  In check mode, until a transfer completes, no thread
// may access its destination or write to its source.  A transfer completes in one of two ways:
//
//   in groups           cp.async, bulk stores, wgmma: add_to_group(groups_of(kind, owner), start(...)), commit(...); the
//                       wait instruction calls complete(groups, left).  The writes then count as the waiting thread's.
//   by an engine        transfers that signal an mbarrier: start_on_engine(start(...), engine, on_complete).  They complete
//                       immediately, or at the latest when no thread can run without them; then on_complete() signals
//                       the barrier.  The writes count as the engine's: publish_engine() adds them to an Order, which
//                       threads that wait for the barrier acquire().

struct Range {
  uintptr_t address;
  size_t bytes;
  bool written;
};

struct Transfer {
  std::vector<Range> ranges;      // the checked memory that it reads and writes
  std::function<void()> perform;  // moves the data
  int thread;                     // the thread that started it
  uintptr_t site;                 // the line that started it, as an address in the kernel's library
  uint32_t group;
  bool performed;  // whether the data was moved early, because its reads were waited for
};

enum class Kind : int { copy, bulk, matrix };
constexpr int KINDS = 3;

struct Groups {  // of an owner: a thread, or the first thread of a warpgroup
  std::vector<Transfer> pending;
  uint32_t open;  // number of the group that the next commit closes
};

Transfer start(std::vector<Range> ranges, std::function<void()> perform, void* return_address);
Groups& groups_of(Kind kind, int owner);
void add_to_group(Groups& groups, Transfer transfer);
void commit(Groups& groups);
// Completes all but the latest `left` committed groups; their accesses then count as the agent's (see clocks.h).
void complete(Groups& groups, uint32_t left, int agent = current->thread);
void complete_reads(Groups& groups, uint32_t left);  // completes only the reads: the sources may be overwritten
void start_on_engine(Transfer transfer, int engine, std::function<void()> on_complete);
bool complete_one_on_engine();                                                             // false if no transfer is pending
const Transfer* transfer_at(uintptr_t address, size_t bytes, bool written);  // a pending one that writes there, or accesses it
void finish_transfers();                                                     // at the end of each cluster
void reset_transfers();                                                      // before each cluster

// ---- mbarrier.cpp, cluster.cpp, wgmma.cpp -----------------------------------------------------------------------------

void reset_mbarriers();  // before each cluster
void reset_cluster();
void reset_wgmma();
void leave_cluster();                                   // called when the current thread returns
int mbarrier_engine(void* barrier, void* caller);       // the engine of the transfers that signal the barrier
void mbarrier_complete_bytes(void* barrier, size_t bytes, uintptr_t site);  // a transfer has written `bytes`
std::string describe_mbarrier(void* barrier);           // what its phase still waits for, for messages

// ---- division.cpp ----------------------------------------------------------------------------------------------------

void begin_division();  // at the start and the end of a launch
void end_division();

// ---- checker.cpp -----------------------------------------------------------------------------------------------------

void begin_checks();          // at the start of a launch
void begin_cluster_checks();  // at the start of each cluster
void end_checks();
void order_all_threads();                               // a barrier of all threads of the cluster
void order_threads(const std::vector<int>& threads);  // a barrier of these threads
void order_fence();
void order_atomic(uintptr_t address);

// A set of numbers from 0; those below 64 need no allocation.
class BitSet {
 public:
  bool has(size_t number) const {
    return number < 64 ? first >> number & 1u : number / 64 - 1 < rest.size() && rest[number / 64 - 1] >> number % 64 & 1u;
  }
  void add(size_t number) {
    if (number >= 64 && number / 64 > rest.size()) rest.resize(number / 64);
    (number < 64 ? first : rest[number / 64 - 1]) |= uint64_t(1) << number % 64;
  }
  void add(const BitSet& other) {
    first |= other.first;
    if (rest.size() < other.rest.size()) rest.resize(other.rest.size());
    for (size_t i = 0; i < other.rest.size(); i++) rest[i] |= other.rest[i];
  }

 private:
  uint64_t first = 0;
  std::vector<uint64_t> rest;
};

// Vector clocks passed through a barrier: accesses of threads before they publish() are ordered before accesses of threads
// after they acquire().  Asynchronous engines (0 to MAX_ENGINES - 1) have clocks, too; each mbarrier uses one engine, which
// keeps the barriers apart.
struct Order {
  std::vector<uint32_t> clocks;
  BitSet acquired;
};
// The following functions are called in check mode only.
void publish(Order& order, int thread);
void publish_engine(Order& order, int engine);
void acquire(const Order& order, int thread);
uint32_t tick(int thread);                // advances the thread's clock; returns its previous value
bool knows(int thread, int other, uint32_t clock);  // whether the thread is ordered after `clock` of the other thread
void publish_engines(Order& order, int thread);  // publishes only the engines' clocks that the thread knows
void order_proxy_fence(bool global);             // by the current thread, for all memory or only for shared memory
void check_reads(const std::vector<Range>& ranges, void* return_address);  // checks reads by the current thread
void check_proxy(const Transfer& transfer);  // checks that its sources were written before a proxy fence
void check_exit(int rank);                // a block has returned: checks that no access to its shared memory can follow

void require_shared(const void* address, const char* what, void* return_address);  // fails if it is not shared memory
void check_start(const Transfer& transfer);  // checks its accesses as the current thread's, and marks them as pending
void check_complete(const Transfer& transfer, int agent);  // records its accesses as the agent's

// ---- lint.cpp --------------------------------------------------------------------------------------------------------

inline bool linting() { return launch->check > 1; }
void begin_lint();  // at the start of a launch
void lint_access(uintptr_t address, size_t bytes, Access kind, uintptr_t site, bool shared);
void lint_warp(int warp);  // evaluates the accesses of a warp since it last synchronised
void lint_block();         // the same for all warps

}  // namespace emulator
