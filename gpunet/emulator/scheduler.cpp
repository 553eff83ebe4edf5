// Schedules fibers, blocks and clusters, and runs launches.

#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>

// threadIdx and the other builtins: const for kernels, written by the scheduler under a second symbol.
extern "C" {
alignas(emulator::Builtins) __attribute__((visibility("default"))) char emulator_builtins_storage[sizeof(emulator::Builtins)];
}
asm(".globl emulator_builtins\n.set emulator_builtins, emulator_builtins_storage\n");

#ifndef EMULATOR_UCONTEXT
asm(R"(
.text
.globl gpunet_emulator_switch
.type gpunet_emulator_switch,@function
gpunet_emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gpunet_emulator_switch,.-gpunet_emulator_switch
)");
#endif

namespace emulator {

constexpr size_t STACK = 64 << 10;                  // bytes of a fiber's stack
constexpr size_t OVERFLOW_ROOM = 1 << 20;           // bytes below the lowest stack that catch its overflow
constexpr uint64_t CANARY = 0x6e6f74737461636bull;  // value at the far end of each stack, to detect overflow
constexpr long IDLE_LIMIT = 400'000;                // iterations of waiting loops without progress before the launch fails

Launch* launch;
Fiber* fibers;
Fiber* current;
int cluster_size, block_threads, thread_count;
int block_slots;  // threads of a block, rounded up to whole warps in clusters
int running[MAX_CLUSTER];
uint32_t cluster_number;

static Builtins& builtins = *reinterpret_cast<Builtins*>(emulator_builtins_storage);
static Context main_context;
static char* stacks;
static int stack_count;
static char* shared_memory;  // dynamic shared memory of the blocks of a cluster, SHARED_STRIDE bytes each
static uint3 block_indices[MAX_CLUSTER];
static std::vector<int> ready;  // runnable threads, from index `first_ready` on
static size_t first_ready;
static uint32_t random_state;
static bool failed;
static long idle;

// ---- failure ---------------------------------------------------------------------------------------------------------

// Ends the launch: writes the message and returns to run_cluster(); the fibers are abandoned.
void fail(const char* kind, const char* format, ...) {
  const size_t room = static_cast<size_t>(launch->message_bytes);
  va_list arguments;
  va_start(arguments, format);
  int length = snprintf(launch->message, room, "%s\n", kind);
  length += vsnprintf(launch->message + length, room - length, format, arguments);
  va_end(arguments);
  length = std::min<int>(length, launch->message_bytes - 1);
  const uint3 block = builtins.block_index, thread = current->index;
  snprintf(launch->message + length, room - length, "\nblock (%u, %u, %u), thread (%u, %u, %u)", block.x, block.y, block.z,
           thread.x, thread.y, thread.z);
  failed = true;
  Fiber* stopped = current;
  current = nullptr;
  switch_context(stopped->context, main_context);
  abort();
}

// Describes where all threads wait, for the message of a deadlock.
static const char* describe_waiting_threads() {
  std::map<std::string, std::pair<int, int>> groups;  // description: number of threads, first thread
  for (int thread = 0; thread < thread_count; thread++) {
    const Fiber& fiber = fibers[thread];
    if (index_in_block(thread) >= block_threads) continue;
    std::string what = "have returned";
    if (!fiber.finished)
      what = std::string("wait at the ") + fiber.waits + " of " + fiber.site.file + ":" + std::to_string(fiber.site.line) +
             (fiber.waits_for ? describe_mbarrier(fiber.waits_for) : "");
    auto& group = groups.emplace(what, std::make_pair(0, thread)).first->second;
    group.first++;
  }
  static char text[1024];
  size_t length = 0;
  for (const auto& [what, group] : groups)
    length += std::min(sizeof text - length - 1,
                       static_cast<size_t>(snprintf(text + length, sizeof text - length, "%s%d of %d threads (first: %s) %s",
                                                    length ? "; " : "", group.first, block_threads * cluster_size,
                                                    thread_title(group.second), what.c_str())));
  return text;
}

[[noreturn]] static void fail_with_deadlock() { fail("divergence", "%s", describe_waiting_threads()); }

// ---- schedules -------------------------------------------------------------------------------------------------------

uint32_t random_number() { return (random_state = random_state * 1664525u + 1013904223u) >> 8; }

static Fiber* next_ready() {
  const size_t count = ready.size() - first_ready;
  if (count == 0) return nullptr;
  int thread;
  switch (static_cast<Schedule>(launch->schedule)) {
    case Schedule::breadth_first:
      thread = ready[first_ready++];
      if (first_ready > 4096) ready.erase(ready.begin(), ready.begin() + first_ready), first_ready = 0;
      return &fibers[thread];
    case Schedule::random: std::swap(ready[first_ready + random_number() % count], ready.back()); break;
    default: break;
  }
  thread = ready.back();
  ready.pop_back();
  return &fibers[thread];
}

static Fiber* next_runnable_or_fail() {
  Fiber* next = next_ready();
  while (!next && complete_one_on_engine()) next = next_ready();
  if (!next) fail_with_deadlock();
  return next;
}

void wake(int thread) {
  fibers[thread].waits = nullptr;
  ready.push_back(thread);
}

void wake_all(const std::vector<int>& threads) {
  // unless the schedule is breadth-first, `ready` is a stack: the thread that is woken last runs first
  const auto schedule = static_cast<Schedule>(launch->schedule);
  if (schedule == Schedule::reversed || schedule == Schedule::breadth_first)
    for (int thread : threads) wake(thread);
  else
    for (size_t i = threads.size(); i-- > 0;) wake(threads[i]);
}

static void switch_to(Fiber* next) {
  Fiber* from = current;
  if (next == from) return;
  current = next;
  builtins.thread_index = next->index;
  builtins.block_index = block_indices[next->rank];
  launch->switches++;
  switch_context(from ? from->context : main_context, next->context);
}

void wait(const char* what, Site site) {
  current->waits = what;
  current->site = site;
  idle = 0;
  switch_to(next_runnable_or_fail());
}

void yield_fiber() {
  ready.insert(ready.begin() + first_ready, current->thread);
  if (static_cast<Schedule>(launch->schedule) == Schedule::breadth_first) {
    ready.erase(ready.begin() + first_ready);
    ready.push_back(current->thread);
  }
  switch_to(next_ready());
}

void yield_in_loop() {
  if (++idle % (4L * thread_count) == 0 && complete_one_on_engine()) idle = 0;
  if (idle > IDLE_LIMIT)
    fail("no progress", "a loop waits for an event that no running thread can cause (the emulator runs blocks one by one)");
  yield_fiber();
}

static void fiber_entry() {
  launch->entry(launch->arguments);
  current->finished = true;
  idle = 0;
  if (--running[current->rank] == 0 && launch->check) check_exit(current->rank);
  leave_block(current->rank);
  leave_cluster();
  Fiber* next = next_ready();
  if (!next && std::all_of(running, running + cluster_size, [](int count) { return count == 0; })) {
    Fiber* last = current;
    current = nullptr;
    switch_context(last->context, main_context);
  }
  switch_to(next ? next : next_runnable_or_fail());
  abort();  // a finished fiber never runs again
}

// ---- queries by a kernel -----------------------------------------------------------------------------------------------

int lane() { return current->thread & 31; }
unsigned int lanes_of_warp() {
  const int left = block_threads - (index_in_block(current->thread) & ~31);
  return left >= 32 ? 0xffffffffu : (1u << left) - 1;
}
void* dynamic_shared_memory() { return shared_memory_of(current->rank); }
long long clock() { return static_cast<long long>(launch->switches); }
bool on_a_stack(uintptr_t address) { return address - reinterpret_cast<uintptr_t>(stacks) < STACK * stack_count; }

// ---- the launch ------------------------------------------------------------------------------------------------------

static char* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<char*>(memory);
}

char* shared_memory_of(int rank) {
  if (!shared_memory) shared_memory = map_memory(SHARED_STRIDE * MAX_CLUSTER);
  return shared_memory + SHARED_STRIDE * static_cast<size_t>(rank);
}

int rank_of_shared(uintptr_t address) {
  const size_t offset = address - reinterpret_cast<uintptr_t>(shared_memory_of(0));
  return offset < SHARED_STRIDE * static_cast<size_t>(cluster_size) ? static_cast<int>(offset / SHARED_STRIDE) : -1;
}

int first_thread(int rank) { return rank * block_slots; }
int index_in_block(int thread) { return thread % block_slots; }

const char* thread_title(int thread) {
  static char texts[4][48];
  static int turn;
  char* text = texts[turn++ % 4];
  if (cluster_size == 1)
    snprintf(text, sizeof texts[0], "thread %d", thread);
  else
    snprintf(text, sizeof texts[0], "thread %d of block %u", index_in_block(thread), block_in_grid(cluster_number, thread / block_slots));
  return text;
}

static uint64_t& canary(int thread) { return *reinterpret_cast<uint64_t*>(stacks + STACK * thread); }

static void allocate_fibers() {
  shared_memory_of(0);
  if (thread_count <= stack_count) return;
  if (stacks) munmap(stacks - OVERFLOW_ROOM, OVERFLOW_ROOM + STACK * stack_count);
  delete[] fibers;
  fibers = new Fiber[thread_count];
  stacks = map_memory(OVERFLOW_ROOM + STACK * thread_count) + OVERFLOW_ROOM;
  stack_count = thread_count;
  for (int thread = 0; thread < thread_count; thread++) canary(thread) = CANARY;
}

static uint3 index_in(const unsigned int* extents, unsigned int number) {
  return {number % extents[0], number / extents[0] % extents[1], number / extents[0] / extents[1]};
}

static uint3 block_index(unsigned int cluster, int rank) {
  const unsigned int *grid = launch->grid, *size = launch->cluster;
  const unsigned int clusters[3] = {grid[0] / size[0], grid[1] / size[1], grid[2] / size[2]};
  const uint3 first = index_in(clusters, cluster), within = index_in(size, static_cast<unsigned int>(rank));
  return {first.x * size[0] + within.x, first.y * size[1] + within.y, first.z * size[2] + within.z};
}

uint32_t block_in_grid(uint32_t cluster, int rank) {
  const uint3 at = block_index(cluster, rank);
  return at.x + launch->grid[0] * (at.y + launch->grid[1] * at.z);
}

static void run_cluster(unsigned int number) {
  cluster_number = number;
  for (int rank = 0; rank < cluster_size; rank++) {
    block_indices[rank] = block_index(number, rank);
    running[rank] = block_threads;
    // NaN in every floating-point format
    memset(shared_memory_of(rank), 0xff, launch->shared_bytes);
  }
  for (int i = 0; i < launch->array_count; i++)
    if (launch->arrays[i].shared) memset(launch->arrays[i].address, 0xff, launch->arrays[i].bytes);
  reset_synchronisation();
  reset_transfers();
  reset_mbarriers();
  reset_cluster();
  reset_wgmma();
  if (launch->check) begin_cluster_checks();
  std::vector<int> all;
  ready.clear();
  first_ready = 0;
  for (int thread = 0; thread < thread_count; thread++) {
    Fiber& fiber = fibers[thread];
    fiber.index = index_in(launch->block, static_cast<unsigned int>(index_in_block(thread)));
    fiber.thread = thread;
    fiber.rank = thread / block_slots;
    fiber.waits_for = nullptr;
    fiber.finished = index_in_block(thread) >= block_threads;
    if (fiber.finished) continue;
    all.push_back(thread);
    const size_t stagger = thread % 16 * 320 + 64;  // otherwise the stacks' tops would share cache sets
    prepare(fiber.context, stacks + STACK * thread, STACK - stagger, fiber_entry);
  }
  wake_all(all);
  current = nullptr;
  switch_to(next_ready());
  if (!failed) finish_transfers();
  if (linting()) lint_block();
  for (int thread = 0; thread < thread_count && !failed; thread++) {
    if (canary(thread) == CANARY) continue;
    canary(thread) = CANARY;
    failed = true;
    snprintf(launch->message, launch->message_bytes, "stack\na thread's local variables take more than the %zu bytes of its stack\n",
             STACK);
  }
}

static int run_launch() {
  const unsigned int *grid = launch->grid, *block = launch->block, *cluster = launch->cluster;
  builtins.grid_size = {grid[0], grid[1], grid[2]};
  builtins.block_size = {block[0], block[1], block[2]};
  block_threads = static_cast<int>(block[0] * block[1] * block[2]);
  cluster_size = static_cast<int>(cluster[0] * cluster[1] * cluster[2]);
  block_slots = cluster_size == 1 ? block_threads : (block_threads + 31) / 32 * 32;
  thread_count = block_slots * cluster_size;
  random_state = launch->seed * 2654435761u + 1;
  failed = false;
  idle = 0;
  allocate_fibers();
  if (launch->check) begin_checks();
  if (linting()) begin_lint();
  const unsigned int clusters = grid[0] * grid[1] * grid[2] / static_cast<unsigned int>(cluster_size);
  std::vector<unsigned int> order(clusters);
  for (unsigned int i = 0; i < clusters; i++) order[i] = i;
  if (static_cast<Schedule>(launch->schedule) == Schedule::reversed) std::reverse(order.begin(), order.end());
  if (static_cast<Schedule>(launch->schedule) == Schedule::random)
    for (unsigned int i = clusters; i-- > 1;) std::swap(order[i], order[random_number() % (i + 1)]);
  begin_division();
  for (unsigned int i = 0; i < clusters && !failed; i++) run_cluster(order[i]);
  end_division();
  if (launch->check) end_checks();
  return failed;
}

}  // namespace emulator

extern "C" __attribute__((visibility("default"))) int emulator_launch(emulator::Launch* launch) {
  static std::mutex running;  // the runtime has one set of fibers
  const std::lock_guard<std::mutex> lock(running);
  emulator::launch = launch;
  launch->message[0] = 0;
  launch->switches = launch->barriers = launch->accesses = launch->transfers = 0;
  return emulator::run_launch();
}

extern "C" __attribute__((visibility("default"))) void* emulator_dynamic_shared(int rank) {
  return emulator::shared_memory_of(rank);
}

// Called in a signal handler on the stack of the running thread.  `site`: address of the faulting instruction.  Does not
// return.
extern "C" __attribute__((visibility("default"))) void emulator_fault(const char* kind, uint64_t site, const char* what) {
  emulator::fail(kind, "%s, at @%#zx", what, static_cast<size_t>(site - emulator::launch->library));
}
