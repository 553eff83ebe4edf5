// What the processes of a communicator share: memory, and waiting for each other.
#pragma once
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>

namespace nccl {

constexpr int kMaxRanks = 16;
constexpr size_t kSlot = 128 << 10;  // bytes of a process that the others read at a time
constexpr size_t kLetter = 64 << 10;  // bytes on the way from one process to another

struct Operation {  // as each process calls it; they must be alike
  int kind, type, op, root;
  uint64_t count;
  bool operator==(const Operation&) const = default;
};

struct Member {
  Operation operation;
  int device;
  alignas(64) char data[kSlot];
};

struct Letter {
  std::atomic<size_t> bytes;  // 0 when it was taken
  char data[kLetter];
};

struct Shared {  // all 0 at first
  std::atomic<int> size;
  std::atomic<uint64_t> arrivals;
  Member members[kMaxRanks];
  Letter letters[kMaxRanks][kMaxRanks];  // from, to
};

inline Shared* open_shared(const char* name) {
  const int file = shm_open(name, O_CREAT | O_RDWR, 0600);
  if (file < 0) return nullptr;
  void* memory = ftruncate(file, sizeof(Shared)) ? MAP_FAILED
                                                 : mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory == MAP_FAILED ? nullptr : static_cast<Shared*>(memory);
}

// Seconds after which a process no longer waits for another one.
inline double time_limit() {
  const char* given = getenv("GPUNET_STANDIN_NCCL_TIMEOUT");
  return given ? atof(given) : 60.0;
}

// Waits until a condition holds; false at the time limit.
template <class Condition>
bool wait_until(Condition holds) {
  const auto start = std::chrono::steady_clock::now();
  for (int turn = 0; !holds(); turn++) {
    if (turn < 100) continue;
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > time_limit()) return false;
    const timespec pause = {0, 50000};
    nanosleep(&pause, nullptr);
  }
  return true;
}

}  // namespace nccl
