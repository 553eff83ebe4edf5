// What the files of the runtime share.
//
//   scheduler.cpp    fibers, schedules, blocks, the launch
//   synchronise.cpp  barriers, warp collectives, fences, atomics: who waits for whom
//   clocks.cpp       check mode: who knows what
//   checker.cpp      check mode: races, bounds, uninitialised shared memory
//   lint.cpp         check mode's count of bank conflicts and sectors, where it is asked for
//   tensor_core.cpp  instructions of a warp on matrices
//   asynchronous.cpp what an instruction starts and a later one waits for
//   mbarrier.cpp, cluster.cpp, bulk.cpp, wgmma.cpp   what hopper.cuh has, see hopper.h
//   callbacks.cpp    what the compiler calls in check mode
#pragma once
#include <stddef.h>
#include <stdint.h>

#include <functional>
#include <string>
#include <vector>

#include "fiber.h"
// the kernels' view of CUDA comes last: its macros would meet those of the system's headers
#include "cuda_on_cpu.h"

namespace emulator {

constexpr int MOST_CLUSTER = 8, MOST_THREADS = 1024 * MOST_CLUSTER, MOST_ENGINES = 32;
constexpr size_t SHARED_APART = 256 << 10;  // from the dynamic shared memory of one block of a cluster to the next one's

enum class Schedule : int { depth_first, reversed, random, breadth_first };
enum class Completion : int { eager, lazy };

struct Fiber {
  Context context;
  uint3 index;
  int thread;         // number among the threads that run together: block_first(rank) + number in its block
  int rank;           // of its block in the cluster
  bool finished;
  const char* waits;  // for what; null if it can run
  void* waits_for;    // the mbarrier, if it is one
  Site site;          // where it waits
  int vote;           // result of its last barrier
};

struct Array {  // as launch.py describes it
  void* address;
  uint64_t bytes;
  int element_bytes;  // 0 where unknown
  int shared;         // whether every block begins with it uninitialised
  int written;        // whether the kernel may write it
  const char* name;
};

struct Launch {  // as launch.py fills it in
  void (*entry)(void**);
  void** arguments;
  unsigned int grid[3], block[3], cluster[3];
  unsigned int shared_bytes, seed;
  int schedule, completion, check;  // check 2: with the lint
  int returned_pass;                // whether __syncthreads passes over threads that have returned, as a GPU does
  int array_count, message_bytes;
  const Array* arrays;
  char* message;
  uint64_t library;  // where it is loaded: sites are relative to it
  uint64_t switches, barriers, accesses, transfers;
};

// ---- scheduler.cpp ---------------------------------------------------------------------------------------------------

extern Launch* launch;
extern Fiber* fibers;
extern Fiber* current;
// The blocks of a cluster run together, those of different clusters one after another.  A kernel without
// __cluster_dims__ has clusters of one block.
extern int cluster_size;
extern int block_threads;           // threads of one block
extern int thread_count;            // of the cluster; where it has several blocks, each begins at a multiple of 32
extern int running[MOST_CLUSTER];   // threads of each block that are not finished
extern int block_slots;             // from the number of a block's first thread to the next one's
extern uint32_t cluster_number;

void wait(const char* what, Site site);  // the current fiber waits until another one wakes it
void let_others_run();               // the current fiber goes on after all others that can
void wake(int thread);
void wake_all(const std::vector<int>& threads);  // in the order of the schedule
bool on_a_stack(uintptr_t address);
int block_first(int rank);                   // number of a block's first thread
int in_block(int thread);                    // a thread's number in its block
const char* thread_title(int thread);        // "thread 5", and of which block where there are several; the last 4 stay
uint32_t block_in_grid(uint32_t cluster, int rank);  // number of a block
char* shared_memory_of(int rank);
int rank_of_shared(uintptr_t address);       // whose dynamic shared memory it is in; -1 for nobody's
uint32_t random_number();

// ---- synchronise.cpp -------------------------------------------------------------------------------------------------

void reset_synchronisation();  // before each cluster
void leave_block(int rank);    // the current thread returns

// ---- asynchronous.cpp ------------------------------------------------------------------------------------------------
//
// An asynchronous instruction starts a Transfer.  Its data moves at once ("eager"), or when it is complete and not
// before ("lazy"): the first and the last moment that a card may choose.  In check mode, until it is complete, nobody may
// touch what it writes, nor write what it reads.  There are two ways to become complete:
//
//   in groups           cp.async, bulk stores, wgmma: join(groups_of(kind, owner), start(...)), commit(...), and the wait
//                       instruction calls complete(groups, left).  The writes are then those of the thread that waited.
//   by an engine        what signals an mbarrier: fly(start(...), engine, landed).  It lands at once, or at the latest
//                       when no thread can run without it; then `landed` tells the barrier.  The writes are the
//                       engine's: publish_engine() hands them to an Order, which those who wait for the barrier acquire().

struct Range {
  uintptr_t address;
  size_t bytes;
  bool written;
};

struct Transfer {
  std::vector<Range> ranges;      // what it reads and writes, in memory that is checked
  std::function<void()> perform;  // moves the data
  int thread;                     // that started it
  uintptr_t site;                 // the line that did, as an address in the kernel's library
  uint32_t group;
  bool performed;  // before it is complete: its reads were waited for
};

enum class Kind : int { copy, bulk, matrix };
constexpr int KINDS = 3;

struct Groups {  // of an owner: a thread, or the first thread of a warp
  std::vector<Transfer> pending;
  uint32_t open;  // number of the group that the next commit closes
};

Transfer start(std::vector<Range> ranges, std::function<void()> perform, void* return_address);
Groups& groups_of(Kind kind, int owner);
void join(Groups& groups, Transfer transfer);
void commit(Groups& groups);
// All but the latest `left` committed groups; their accesses are then those of a thread, or of MOST_THREADS + an engine.
void complete(Groups& groups, uint32_t left, int agent = current->thread);
void complete_reads(Groups& groups, uint32_t left);  // what they read may change; what they write is not complete
void fly(Transfer transfer, int engine, std::function<void()> landed);
bool land_one();                                                             // false if none is in flight
const Transfer* transfer_at(uintptr_t address, size_t bytes, bool written);  // pending: one that writes there, or any
void finish_transfers();                                                     // at the end of each cluster
void reset_transfers();                                                      // before each cluster

// ---- mbarrier.cpp, cluster.cpp, wgmma.cpp -----------------------------------------------------------------------------

void reset_mbarriers();  // before each cluster
void reset_cluster();
void reset_wgmma();
void leave_cluster();                                   // the current thread returns
int mbarrier_engine(void* barrier, void* caller);       // whose transfers signal it
void mbarrier_bytes_come(void* barrier, size_t bytes, uintptr_t site);
std::string describe_mbarrier(void* barrier);           // what its phase lacks

// ---- checker.cpp -----------------------------------------------------------------------------------------------------

void begin_checks();  // of a launch
void begin_cluster_checks();
void end_checks();
void order_everybody();                               // a barrier of all threads of the cluster
void order_threads(const std::vector<int>& threads);  // a collective that orders memory
void order_fence();
void order_atomic(uintptr_t address);

// What is handed on through a barrier: what those who published to it did before is ordered before what those who acquire
// it do afterwards.  Each engine (0 to MOST_ENGINES - 1) has a clock of its own: one a barrier keeps barriers apart.
struct Order {
  std::vector<uint32_t> clocks;
  uint64_t acquired = 0;
};
// These and what follows are called in check mode only.
void publish(Order& order, int thread);
void publish_engine(Order& order, int engine);
void acquire(const Order& order, int thread);
uint32_t tick(int thread);                // moves the clock on; where it stood before
bool knows(int thread, int other, uint32_t clock);
void publish_engines(Order& order, int thread);  // what the thread knows of them alone
void order_proxy_fence(bool global);             // of the current thread; else for shared memory alone
void check_reads(const std::vector<Range>& ranges, void* return_address);  // by the current thread
void check_proxy(const Transfer& transfer);  // that what it reads was written before a proxy fence
void check_exit(int rank);                // of a block's last thread: nobody else may be in its shared memory any more

void need_shared(const void* address, const char* what, void* return_address);  // a finding if it is not shared memory
void check_start(const Transfer& transfer);  // its accesses, as the current thread's; then nobody may touch the memory
void check_complete(const Transfer& transfer, int agent);  // its accesses are the agent's: a thread, or MOST_THREADS + engine
// ---- lint.cpp --------------------------------------------------------------------------------------------------------

inline bool linting() { return launch->check > 1; }
void begin_lint();  // of a launch
void lint_access(uintptr_t address, size_t bytes, Access kind, uintptr_t site, bool shared);
void lint_warp(int warp);  // its lanes have met
void lint_block();         // all of them have

}  // namespace emulator
