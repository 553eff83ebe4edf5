// Fibers, schedules, blocks, the launch.

#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <string>

// Mutable here, constant for the kernels.
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

constexpr size_t STACK = 64 << 10, MOST_SHARED = 232448;
constexpr uint64_t CANARY = 0x6e6f74737461636bull;  // at the far end of each stack
constexpr long IDLE_LIMIT = 400'000;                // turns of waiting loops in which nobody gets anywhere

Launch* launch;
Fiber* fibers;
Fiber* current;
int thread_count, running;
uint32_t block_number;

static Builtins& builtins = *reinterpret_cast<Builtins*>(emulator_builtins_storage);
static Context main_context;
static char* stacks;
static int stack_count;
static char* shared_memory;
static std::vector<int> ready;  // from `first_ready` on
static size_t first_ready;
static uint32_t random_state;
static bool failed;
static long idle;

// ---- failure ---------------------------------------------------------------------------------------------------------

// The launch ends here: its fibers are left where they are.
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

// What the threads do, most telling where they do different things.
static const char* whereabouts() {
  std::map<std::string, std::pair<int, int>> groups;  // what they do: how many, the first
  for (int thread = 0; thread < thread_count; thread++) {
    const Fiber& fiber = fibers[thread];
    std::string what = "have returned";
    if (!fiber.finished)
      what = std::string("wait at the ") + fiber.waits + " of " + fiber.site.file + ":" + std::to_string(fiber.site.line);
    auto& group = groups.emplace(what, std::make_pair(0, thread)).first->second;
    group.first++;
  }
  static char text[1024];
  size_t length = 0;
  for (const auto& [what, group] : groups)
    length += std::min(sizeof text - length - 1,
                       static_cast<size_t>(snprintf(text + length, sizeof text - length, "%s%d of %d threads (first: thread %d) %s",
                                                    length ? "; " : "", group.first, thread_count, group.second, what.c_str())));
  return text;
}

[[noreturn]] static void nobody_can_run() { fail("divergence", "%s", whereabouts()); }

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

static Fiber* next_or_fail() {
  Fiber* next = next_ready();
  while (!next && land_one()) next = next_ready();
  if (!next) nobody_can_run();
  return next;
}

void wake(int thread) {
  fibers[thread].waits = nullptr;
  ready.push_back(thread);
}

void wake_all(const std::vector<int>& threads) {
  // the last to be woken runs first where the ready are a stack
  const auto schedule = static_cast<Schedule>(launch->schedule);
  if (schedule == Schedule::reversed || schedule == Schedule::breadth_first)
    for (int thread : threads) wake(thread);
  else
    for (size_t i = threads.size(); i-- > 0;) wake(threads[i]);
}

static void run(Fiber* next) {
  Fiber* from = current;
  if (next == from) return;
  current = next;
  builtins.thread_index = next->index;
  launch->switches++;
  switch_context(from ? from->context : main_context, next->context);
}

void wait(const char* what, Site site) {
  current->waits = what;
  current->site = site;
  idle = 0;
  run(next_or_fail());
}

void let_others_run() {
  ready.insert(ready.begin() + first_ready, current->thread);
  if (static_cast<Schedule>(launch->schedule) == Schedule::breadth_first) {
    ready.erase(ready.begin() + first_ready);
    ready.push_back(current->thread);
  }
  run(next_ready());
}

void give_way() {
  if (++idle % (4L * thread_count) == 0 && land_one()) idle = 0;
  if (idle > IDLE_LIMIT)
    fail("no progress", "a loop waits for something that no running thread does (blocks run one after another)");
  let_others_run();
}

static void fiber_entry() {
  launch->entry(launch->arguments);
  current->finished = true;
  idle = 0;
  if (--running == 0) {
    Fiber* last = current;
    current = nullptr;
    switch_context(last->context, main_context);
  }
  run(next_or_fail());
  abort();  // a finished fiber never runs again
}

// ---- what a kernel asks ------------------------------------------------------------------------------------------------

int lane() { return current->thread & 31; }
unsigned int lanes_of_warp() {
  const int left = thread_count - (current->thread & ~31);
  return left >= 32 ? 0xffffffffu : (1u << left) - 1;
}
void* dynamic_shared_memory() { return shared_memory; }
long long clock() { return static_cast<long long>(launch->switches); }
bool on_a_stack(uintptr_t address) { return address - reinterpret_cast<uintptr_t>(stacks) < STACK * stack_count; }

// ---- the launch ------------------------------------------------------------------------------------------------------

static char* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) abort();
  return static_cast<char*>(memory);
}

static uint64_t& canary(int thread) { return *reinterpret_cast<uint64_t*>(stacks + STACK * thread); }

static void make_room() {
  if (!shared_memory) shared_memory = map_memory(MOST_SHARED + 4096);
  if (thread_count <= stack_count) return;
  if (stacks) munmap(stacks, STACK * stack_count);
  delete[] fibers;
  fibers = new Fiber[thread_count];
  stacks = map_memory(STACK * thread_count);
  stack_count = thread_count;
  for (int thread = 0; thread < thread_count; thread++) canary(thread) = CANARY;
}

static void run_block(unsigned int number) {
  const unsigned int *grid = launch->grid, *block = launch->block;
  block_number = number;
  builtins.block_index = {number % grid[0], number / grid[0] % grid[1], number / grid[0] / grid[1]};
  // not-a-number in every floating format
  memset(shared_memory, 0xff, launch->shared_bytes);
  for (int i = 0; i < launch->array_count; i++)
    if (launch->arrays[i].shared) memset(launch->arrays[i].address, 0xff, launch->arrays[i].bytes);
  reset_synchronisation();
  reset_transfers();
  if (launch->check) begin_block_checks();
  std::vector<int> all(thread_count);
  ready.clear();
  first_ready = 0;
  running = thread_count;
  for (int thread = 0; thread < thread_count; thread++) {
    const unsigned int t = static_cast<unsigned int>(thread);
    Fiber& fiber = fibers[thread];
    fiber.index = {t % block[0], t / block[0] % block[1], t / block[0] / block[1]};
    fiber.thread = all[thread] = thread;
    fiber.finished = false;
    const size_t stagger = thread % 16 * 320 + 64;  // stacks a power of two apart would share a cache set
    prepare(fiber.context, stacks + STACK * thread, STACK - stagger, fiber_entry);
  }
  wake_all(all);
  current = nullptr;
  run(next_ready());
  if (!failed) finish_transfers();
  for (int thread = 0; thread < thread_count && !failed; thread++) {
    if (canary(thread) == CANARY) continue;
    canary(thread) = CANARY;
    failed = true;
    snprintf(launch->message, launch->message_bytes, "stack\na thread's local variables take more than the %zu bytes of its stack\n",
             STACK);
  }
}

static int run_launch() {
  const unsigned int *grid = launch->grid, *block = launch->block;
  builtins.grid_size = {grid[0], grid[1], grid[2]};
  builtins.block_size = {block[0], block[1], block[2]};
  thread_count = static_cast<int>(block[0] * block[1] * block[2]);
  random_state = launch->seed * 2654435761u + 1;
  failed = false;
  idle = 0;
  make_room();
  if (launch->check) begin_checks();
  const unsigned int blocks = grid[0] * grid[1] * grid[2];
  std::vector<unsigned int> order(blocks);
  for (unsigned int i = 0; i < blocks; i++) order[i] = i;
  if (static_cast<Schedule>(launch->schedule) == Schedule::reversed) std::reverse(order.begin(), order.end());
  if (static_cast<Schedule>(launch->schedule) == Schedule::random)
    for (unsigned int i = blocks; i-- > 1;) std::swap(order[i], order[random_number() % (i + 1)]);
  for (unsigned int i = 0; i < blocks && !failed; i++) run_block(order[i]);
  if (launch->check) end_checks();
  return failed;
}

}  // namespace emulator

extern "C" __attribute__((visibility("default"))) int emulator_launch(emulator::Launch* launch) {
  emulator::launch = launch;
  launch->message[0] = 0;
  launch->switches = launch->barriers = launch->accesses = launch->transfers = 0;
  return emulator::run_launch();
}

extern "C" __attribute__((visibility("default"))) void* emulator_dynamic_shared() {
  if (!emulator::shared_memory) emulator::shared_memory = emulator::map_memory(emulator::MOST_SHARED + 4096);
  return emulator::shared_memory;
}
