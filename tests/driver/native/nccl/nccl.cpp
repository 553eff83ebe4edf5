// The stand-in for libnccl.so.2: collectives of processes on one machine, through shared memory.  Each is a host function of its
// stream, which a captured graph runs at every replay.  Sums are those in the order of the ranks.
#include <cuda.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../halves.h"
#include "../host_work.h"
#include "shared.h"

namespace nccl {

enum Result { kSuccess, kCudaError, kSystemError, kInternalError, kInvalidArgument, kInvalidUsage, kRemoteError };
enum Kind { kAllReduce, kReduce, kBroadcast, kAllGather, kReduceScatter, kSend, kReceive };
enum Op { kSum, kProduct, kMax, kMin, kAverage };

struct Communicator {
  Shared* shared;
  int rank, size, device;
  uint64_t generation = 0;
  std::atomic<int> error = kSuccess;
  CUevent last = nullptr;  // behind the last operation that was enqueued outside of captures
  CUstream last_stream = nullptr;

  ~Communicator() { munmap(shared, sizeof(Shared)); }

  void fail(const char* what) {
    if (!error.exchange(kRemoteError)) fprintf(stderr, "stand-in NCCL: rank %d of %d: %s\n", rank, size, what);
  }
  bool meet() {  // waits until all processes are here
    const uint64_t wanted = ++generation * static_cast<uint64_t>(size);
    shared->arrivals++;
    return wait_until([&] { return shared->arrivals >= wanted; });
  }
};
using Handle = std::shared_ptr<Communicator>;

struct Pending {
  Handle* communicator;
  CUstream stream;
  Operation operation;
  const char* from;
  char* to;
};

std::atomic<uint64_t> num_run = 0, num_destroyed = 0;

// ---- numbers ----------------------------------------------------------------------------------------------------------

template <class T>
T combined(int op, T a, T b) {
  switch (op) {
    case kProduct: return static_cast<T>(a * b);
    case kMax: return a != a ? a : b != b ? b : std::max(a, b);
    case kMin: return a != a ? a : b != b ? b : std::min(a, b);
    default: return static_cast<T>(a + b);
  }
}

template <class T, class Load, class Store>
void combine(const Communicator& c, int op, size_t offset, size_t bytes, char* to, Load load, Store store) {
  for (size_t i = 0; i < bytes / sizeof(T); i++) {
    const auto of = [&](int rank) { return load(reinterpret_cast<const T*>(c.shared->members[rank].data + offset)[i]); };
    auto value = of(0);
    for (int rank = 1; rank < c.size; rank++) value = load(store(combined(op, value, of(rank))));
    if (op == kAverage) value = static_cast<decltype(value)>(value / static_cast<decltype(value)>(c.size));
    reinterpret_cast<T*>(to)[i] = store(value);
  }
}

template <class T>
void combine(const Communicator& c, int op, size_t offset, size_t bytes, char* to) {
  const auto same = [](T x) { return x; };
  combine<T>(c, op, offset, bytes, to, same, same);
}

// Combines the same bytes of the slots of all processes.
void combine(const Communicator& c, int type, int op, size_t offset, size_t bytes, char* to) {
  switch (type) {
    case 0: return combine<int8_t>(c, op, offset, bytes, to);
    case 1: return combine<uint8_t>(c, op, offset, bytes, to);
    case 2: return combine<int32_t>(c, op, offset, bytes, to);
    case 3: return combine<uint32_t>(c, op, offset, bytes, to);
    case 4: return combine<int64_t>(c, op, offset, bytes, to);
    case 5: return combine<uint64_t>(c, op, offset, bytes, to);
    case 6: return combine<uint16_t>(c, op, offset, bytes, to, halves::float_of_half, halves::half_of);
    case 7: return combine<float>(c, op, offset, bytes, to);
    case 8: return combine<double>(c, op, offset, bytes, to);
    default: return combine<uint16_t>(c, op, offset, bytes, to, halves::float_of_bfloat16, halves::bfloat16_of);
  }
}

constexpr size_t kSizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};  // of the types of ncclDataType_t

// ---- the work of a collective -------------------------------------------------------------------------------------------

// What the others have put into their slots, for this process: bytes [begin, begin + n) of what each contributes.
void consume(const Communicator& c, const Pending& p, size_t begin, size_t n) {
  const Operation& o = p.operation;
  const size_t own = o.count * kSizes[o.type];  // bytes of a process's part
  switch (o.kind) {
    case kAllReduce: return combine(c, o.type, o.op, 0, n, p.to + begin);
    case kReduce:
      if (c.rank == o.root) combine(c, o.type, o.op, 0, n, p.to + begin);
      return;
    case kBroadcast: memcpy(p.to + begin, c.shared->members[o.root].data, n); return;
    case kAllGather:
      for (int rank = 0; rank < c.size; rank++) memcpy(p.to + own * rank + begin, c.shared->members[rank].data, n);
      return;
    default:
      const size_t first = std::max(begin, own * c.rank), last = std::min(begin + n, own * (c.rank + 1));
      if (first < last) combine(c, o.type, o.op, first - begin, last - first, p.to + first - own * c.rank);
  }
}

void run_collective(Communicator& c, const Pending& p) {
  if (c.error) return;
  num_run++;
  const Operation& o = p.operation;
  Member& self = c.shared->members[c.rank];
  self.operation = o;
  const size_t bytes = o.count * kSizes[o.type] * (o.kind == kReduceScatter ? c.size : 1);
  for (size_t begin = 0; begin < bytes; begin += kSlot) {
    const size_t n = std::min(kSlot, bytes - begin);
    if (o.kind != kBroadcast || c.rank == o.root) memcpy(self.data, p.from + begin, n);
    if (!c.meet()) return c.fail("the others do not answer");
    for (int rank = 0; rank < c.size && !begin; rank++)
      if (!(c.shared->members[rank].operation == o)) return c.fail("another process calls another collective");
    consume(c, p, begin, n);
    if (!c.meet()) return c.fail("the others do not answer");
  }
}

struct Transfer {
  bool sends;
  char* data;
  size_t bytes;
  int peer;
  size_t done = 0;
  bool ended = false;
};

// Moves what can be moved now; returns whether anything did.
bool advance(Communicator& c, Transfer& t) {
  Letter& letter = t.sends ? c.shared->letters[c.rank][t.peer] : c.shared->letters[t.peer][c.rank];
  const size_t full = letter.bytes, left = t.bytes - t.done;
  if (t.sends && !full) {
    if (!left) return t.ended = true;  // the last letter was taken
    const size_t n = std::min(kLetter, left);
    memcpy(letter.data, t.data + t.done, n);
    t.done += n;
    letter.bytes = n;
    return true;
  }
  if (!t.sends && full) {
    memcpy(t.data + t.done, letter.data, std::min(full, left));
    t.done += full;
    letter.bytes = 0;
    t.ended = t.done >= t.bytes;
    return true;
  }
  return false;
}

void run_transfers(Communicator& c, std::vector<Transfer> transfers) {
  if (c.error) return;
  num_run++;
  const auto is_blocked = [&](const Transfer& t) {  // by an earlier one of the same pair
    const auto is_alike = [&](const Transfer& u) { return !u.ended && u.sends == t.sends && u.peer == t.peer; };
    return std::any_of<const Transfer*>(transfers.data(), &t, is_alike);
  };
  const auto is_open = [](const Transfer& t) { return !t.ended; };
  while (std::any_of(transfers.begin(), transfers.end(), is_open)) {
    const bool moved = wait_until([&] {
      bool any = false;
      for (Transfer& t : transfers)
        if (!t.ended && !is_blocked(t)) any |= advance(c, t);
      return any;
    });
    if (!moved) return c.fail("the other process neither sends nor receives");
  }
}

// ---- calls ------------------------------------------------------------------------------------------------------------

thread_local int depth = 0;  // of groups
thread_local std::vector<Pending> group;

// Operations of a communicator run in the order of the calls, on whatever streams.
bool enqueue(const Handle& c, CUstream stream, std::function<void()> run) {
  CUstreamCaptureStatus status;
  if (cuStreamIsCapturing(stream, &status)) return false;
  const bool captured = status == CU_STREAM_CAPTURE_STATUS_ACTIVE;  // the nodes of a graph have that order
  if (!captured && !c->last && cuEventCreate(&c->last, CU_EVENT_DISABLE_TIMING)) return false;
  if (!captured && c->last_stream != stream && cuStreamWaitEvent(stream, c->last, 0)) return false;
  if (!host_work::enqueue(stream, std::move(run))) return false;
  if (captured) return true;
  c->last_stream = stream;
  return !cuEventRecord(c->last, stream);
}

int flush() {
  std::vector<Pending> pending;
  pending.swap(group);
  while (!pending.empty()) {
    const Pending first = pending.front();
    const Handle c = *first.communicator;
    std::function<void()> run = [=] { run_collective(*c, first); };
    auto rest = pending.begin() + 1;
    if (first.operation.kind >= kSend) {  // at once with all others of its communicator and stream
      rest = std::stable_partition(pending.begin(), pending.end(), [&](const Pending& p) {
        return p.operation.kind >= kSend && p.communicator == first.communicator && p.stream == first.stream;
      });
      std::vector<Transfer> transfers;
      for (auto p = pending.begin(); p != rest; p++) {
        const bool sends = p->operation.kind == kSend;
        const size_t bytes = p->operation.count * kSizes[p->operation.type];
        transfers.push_back({sends, sends ? const_cast<char*>(p->from) : p->to, bytes, p->operation.root});
      }
      run = [=] { run_transfers(*c, transfers); };
    }
    pending.erase(pending.begin(), rest);
    if (!enqueue(c, first.stream, run)) return kCudaError;
  }
  return kSuccess;
}

bool is_on_device(const void* data) {
  int type = 0;
  return data && !cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, reinterpret_cast<CUdeviceptr>(data)) &&
         type == CU_MEMORYTYPE_DEVICE;
}

int call(Handle* communicator, CUstream stream, Kind kind, size_t count, int type, int op, int root, const void* from,
         void* to) {
  if (!communicator || type < 0 || type > 9 || op < 0 || op > kAverage) return kInvalidArgument;
  if (const int error = (*communicator)->error) return error;
  if (root < 0 || root >= (*communicator)->size) return kInvalidArgument;
  const bool reads = kind != kReceive && (kind != kBroadcast || root == (*communicator)->rank);
  const bool writes = kind != kSend && (kind != kReduce || root == (*communicator)->rank);
  if (count && ((reads && !is_on_device(from)) || (writes && !is_on_device(to)))) return kInvalidArgument;
  const Operation operation = {kind, type, op, root, count};
  group.push_back({communicator, stream, operation, static_cast<const char*>(from), static_cast<char*>(to)});
  return depth ? static_cast<int>(kSuccess) : flush();
}

struct UniqueId {
  char name[128];  // of the shared memory
};
}  // namespace nccl

using namespace nccl;

#define API extern "C" __attribute__((visibility("default"))) int

API ncclGetVersion(int* version) {
  *version = 22707;
  return kSuccess;
}
API ncclGetUniqueId(UniqueId* id) {
  memset(id, 0, sizeof *id);
  snprintf(id->name, sizeof id->name, "/gpunet-nccl-%08x%08x", std::random_device()(), std::random_device()());
  return kSuccess;
}
extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int result) {
  static const char* const names[] = {
      "no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage",
      "remote process exited or there was a network error"};
  return result >= 0 && result <= kRemoteError ? names[result] : "unknown result code";
}

API ncclCommInitRankConfig(Handle** made, int size, UniqueId id, int rank, void*) {
  int device;
  if (cuCtxGetDevice(&device)) device = 0;  // no context yet: the one that the runtime makes is that of the first device
  if (size < 1 || size > kMaxRanks || rank < 0 || rank >= size) return kInvalidArgument;
  Shared* shared = open_shared(id.name);
  if (!shared) return kSystemError;
  const Handle c(new Communicator{shared, rank, size, device});
  int before = 0;
  const bool same_size = shared->size.compare_exchange_strong(before, size) || before == size;
  shared->members[rank].device = device;
  const bool met = same_size && c->meet();
  shm_unlink(id.name);  // of whoever is first; all have it open
  if (!met) return same_size ? kSystemError : kInvalidArgument;
  for (int i = 0; i < size; i++)
    for (int j = 0; j < i; j++)
      if (shared->members[i].device == shared->members[j].device) return kInvalidUsage;  // as NCCL finds duplicate GPUs
  *made = new Handle(c);
  return kSuccess;
}
API ncclCommDestroy(Handle* communicator) {
  num_destroyed++;
  delete communicator;  // captured graphs keep what they use
  return kSuccess;
}
API ncclCommAbort(Handle* communicator) { return ncclCommDestroy(communicator); }
API ncclCommInitAll(Handle**, int, const int*) { return kInvalidUsage; }
API ncclCommSplit(Handle*, int, int, Handle**, void*) { return kInvalidUsage; }
API ncclCommCount(Handle* communicator, int* count) {
  *count = (*communicator)->size;
  return kSuccess;
}
API ncclCommCuDevice(Handle* communicator, int* device) {
  *device = (*communicator)->device;
  return kSuccess;
}
API ncclCommUserRank(Handle* communicator, int* rank) {
  *rank = (*communicator)->rank;
  return kSuccess;
}
API ncclCommGetAsyncError(Handle* communicator, int* error) {
  *error = (*communicator)->error;
  return kSuccess;
}

API ncclGroupStart() {
  depth++;
  return kSuccess;
}
API ncclGroupEnd() {
  if (!depth) return kInvalidUsage;
  return --depth ? static_cast<int>(kSuccess) : flush();
}

API ncclAllReduce(const void* from, void* to, size_t count, int type, int op, Handle* c, CUstream stream) {
  return call(c, stream, kAllReduce, count, type, op, 0, from, to);
}
API ncclReduce(const void* from, void* to, size_t count, int type, int op, int root, Handle* c, CUstream stream) {
  return call(c, stream, kReduce, count, type, op, root, from, to);
}
API ncclBroadcast(const void* from, void* to, size_t count, int type, int root, Handle* c, CUstream stream) {
  return call(c, stream, kBroadcast, count, type, kSum, root, from, to);
}
API ncclBcast(void* data, size_t count, int type, int root, Handle* c, CUstream stream) {
  return ncclBroadcast(data, data, count, type, root, c, stream);
}
API ncclAllGather(const void* from, void* to, size_t count, int type, Handle* c, CUstream stream) {
  return call(c, stream, kAllGather, count, type, kSum, 0, from, to);
}
API ncclReduceScatter(const void* from, void* to, size_t count, int type, int op, Handle* c, CUstream stream) {
  return call(c, stream, kReduceScatter, count, type, op, 0, from, to);
}
API ncclSend(const void* from, size_t count, int type, int peer, Handle* c, CUstream stream) {
  return call(c, stream, kSend, count, type, kSum, peer, from, nullptr);
}
API ncclRecv(void* to, size_t count, int type, int peer, Handle* c, CUstream stream) {
  return call(c, stream, kReceive, count, type, kSum, peer, nullptr, to);
}

// The number of collectives, and of groups of sends and receives, that this process has run.
extern "C" __attribute__((visibility("default"))) uint64_t standin_nccl_num_run() { return num_run; }
// The number of communicators that this process has destroyed.
extern "C" __attribute__((visibility("default"))) uint64_t standin_nccl_num_destroyed() { return num_destroyed; }
