// Declarations shared by the files of the stand-in driver (libcuda.so.1).
//
//   errors.cpp      error names, messages, the check at the head of every call
//   devices.cpp     devices, contexts, peer access
//   address_space.cpp  pages of allocations, and pages that nobody may touch
//   memory.cpp      allocations, pools, pointer attributes
//   copies.cpp      memcpy and memset
//   faults.cpp      invalid accesses of running work become CUDA errors
//   streams.cpp     streams and their queues
//   events.cpp      events
//   capture.cpp     stream capture
//   graphs.cpp      graphs and their replay
//   images.cpp      cubins and PTX as NVRTC makes them
//   modules.cpp     modules, functions, variables, the linker
//   launch.cpp      kernel launches
//   tensor_map.cpp  cuTensorMapEncodeTiled
//
// Device memory is host memory.  In eager mode work runs inside the call that enqueues it.  In lazy mode work runs when the host,
// or another stream, waits for it: as late as a GPU may run it.
#pragma once
#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "emulator_interface.h"

namespace driver {

// ---- errors.cpp ------------------------------------------------------------------------------------------------------

struct Settings {  // as Settings in tests/driver/__init__.py
  int devices, peers, lazy, check;
  uint64_t memory_bytes;  // of each device
};
extern Settings settings;

constexpr int kMaxDevices = 8;

// Keeps the message for cuGetErrorString of this thread and returns the code.
__attribute__((format(printf, 2, 3))) CUresult fail(CUresult code, const char* format, ...);
std::string last_message();

// Names the running call for messages.  refusal() is an error if cuInit was not called, or if an earlier fault left the
// current context unusable.
class Call {
 public:
  explicit Call(const char* function);
  ~Call();
  CUresult refusal() const;

 private:
  const char* outer_;
};

#define API extern "C" __attribute__((visibility("default"))) CUresult
#define BEGIN_CALL           \
  const Call call(__func__); \
  if (const CUresult refused = call.refusal()) return refused

// Guards all state below.  Not held while work runs.
extern std::recursive_mutex state_lock;
// Held by the thread that runs work: one work at a time, so that none begins before an earlier one of its stream has ended in
// another thread.  Taken before state_lock.  A host function may need Python's global lock: a call that may be made while that
// is held must not block here.
extern std::recursive_mutex run_lock;
using Lock = std::lock_guard<std::recursive_mutex>;

// ---- work ------------------------------------------------------------------------------------------------------------

struct Work {
  CUgraphNodeType type;
  std::string name;  // in messages: "copy of 40 bytes", "kernel add"
  std::function<CUresult()> run;
};

// Runs a function; an invalid access in it, of which `name` is the subject, becomes CUDA_ERROR_ILLEGAL_ADDRESS.
CUresult guarded(const char* name, const std::function<CUresult()>& run);  // faults.cpp
// Runs work of a context.  An invalid access or an error makes the context unusable, as CUDA's sticky errors do.
CUresult run_work(CUcontext context, const Work& work);  // faults.cpp
extern thread_local bool kernel_is_running;  // on this thread, in the emulator

}  // namespace driver

// ---- capture and graphs ----------------------------------------------------------------------------------------------

struct CUgraphNode_st {
  driver::Work work;
  std::vector<CUgraphNode> dependencies;
};

struct CUgraph_st {
  std::vector<std::shared_ptr<CUgraphNode_st>> nodes;  // in the order of capture, which respects dependencies
};

struct CUgraphExec_st {
  std::vector<std::shared_ptr<CUgraphNode_st>> order;
};

namespace driver {
struct Capture {
  CUgraph graph = new CUgraph_st;
  CUstream origin = nullptr;
  CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
  std::thread::id thread;
  std::string invalid;  // why the capture is invalid; empty while it is valid
  uint64_t id = 0;
  std::vector<CUstream> streams;  // the origin and those that joined through events
};
}  // namespace driver

// ---- streams, events, contexts ---------------------------------------------------------------------------------------

struct CUstream_st {
  unsigned flags = 0;
  int priority = 0;
  CUcontext context = nullptr;
  uint64_t id = 0;
  bool is_per_thread = false, destroyed = false;
  std::deque<driver::Work> queue = {};
  uint64_t enqueued = 0, finished = 0;  // numbers of works
  bool running = false;  // whether one of them runs
  driver::Capture* capture = nullptr;
  std::vector<CUgraphNode> tail = {};  // nodes that the next captured node depends on
};

struct CUevent_st {
  unsigned flags = 0;
  CUcontext context = nullptr;
  bool destroyed = false;
  CUstream stream = nullptr;  // null until it is recorded
  uint64_t position = 0;  // works of the stream that come before the event
  std::chrono::steady_clock::time_point time = {};
  driver::Capture* capture = nullptr;  // that it was recorded in
  std::vector<CUgraphNode> nodes = {};  // the stream's tail at that moment
};

struct CUctx_st {
  int device;
  int retained = 0;
  bool destroyed = false;
  unsigned flags = 0;
  CUresult fault = CUDA_SUCCESS;  // sticky: every later call returns it
  std::string fault_message = {};
  std::map<CUlimit, size_t> limits = {};
  std::set<int> peers = {};  // devices whose memory kernels of this context may access
  CUstream_st legacy = {};
};

namespace driver {

// ---- devices.cpp -----------------------------------------------------------------------------------------------------

CUcontext primary_context(int device);
CUcontext current_context();  // null if there is none
bool is_initialised();
uint64_t next_id();
constexpr int kStaticSharedLimit = 48 << 10, kOptInSharedLimit = 232448;

// ---- memory.cpp ------------------------------------------------------------------------------------------------------

enum class Kind { device, managed, host, registered, variable };
struct Allocation {
  uintptr_t begin;
  size_t bytes;
  Kind kind;
  CUcontext context;  // that it was made in
  uint64_t id;
  std::string name;  // of a module's variable
  CUmemoryPool pool;  // of stream-ordered memory, else null
};

const Allocation* find_allocation(uintptr_t address);
// For a message: where an address lies, "40 bytes past the end of an allocation of 80 bytes on device 0".
std::string describe_address(uintptr_t address);
bool is_host_memory(uintptr_t address);  // memory that CUDA does not know
// Whether kernels of a context may access an allocation.
bool is_accessible(const Allocation& allocation, CUcontext context);
CUresult check_range(const char* role, uintptr_t address, size_t bytes);
CUresult allocate(uintptr_t* address, size_t bytes, Kind kind, CUmemoryPool pool = nullptr);
CUresult release(uintptr_t address);
void add_variable(uintptr_t address, size_t bytes, CUcontext context, const std::string& name);
void remove_variable(uintptr_t address);

// ---- address_space.cpp -------------------------------------------------------------------------------------------------

constexpr size_t kGap = 64 << 10;  // bytes between allocations that lie apart
// Memory for an allocation; 0 if there is none.  The caller holds state_lock.
uintptr_t take_memory(Kind kind, int device, size_t bytes);
void give_back_memory(uintptr_t address, size_t bytes);
void poison(void* memory, size_t bytes);

// ---- streams.cpp -----------------------------------------------------------------------------------------------------

CUstream resolve(CUstream stream);  // null and the special handles to the stream itself; null for an invalid handle
bool is_legacy(CUstream stream);
// Runs work now, later, or makes it a node of the graph that the stream is captured into.
CUresult enqueue(CUstream handle, Work work);
// Run work until the stream has done what comes before a position, and all work of a context.
CUresult run_queue(CUstream stream, uint64_t position = UINT64_MAX);
CUresult run_queues(CUcontext context, bool blocking_only = false);
void drop_queues(CUcontext context);
Work wait_for(CUstream stream, uint64_t position);
// The legacy stream waits for the blocking streams, and they for it.
void append_implicit_waits(CUstream stream);

// ---- capture.cpp -----------------------------------------------------------------------------------------------------

extern std::vector<Capture*> captures;
CUresult add_node(CUstream stream, Work work);
// Work on the legacy stream would wait for blocking streams: an error while one of them is captured.
CUresult check_legacy(CUstream stream);
// For calls that may synchronise (cuMemAlloc, synchronous copies): an error while a stream is captured, by its mode.
CUresult check_unsafe_call();
CUresult invalidate(Capture* capture, CUresult code, const char* format, ...) __attribute__((format(printf, 3, 4)));
CUresult wait_for_captured_event(CUstream stream, CUevent event);

// ---- images.cpp ------------------------------------------------------------------------------------------------------

struct ParameterInfo {
  int offset, bytes;
};
struct KernelInfo {  // of a cubin
  std::vector<ParameterInfo> parameters;
  int registers = 0, static_shared = 0, local_bytes = 0, constant_bytes = 0, max_threads = 1024;
};
struct Image {
  std::string record;  // of tests/driver/native/record.h
  std::map<std::string, KernelInfo> kernels;
  std::map<std::string, size_t> variables;  // bytes of each
  bool is_cubin = false;  // else PTX, whose resources are unknown
};
CUresult read_image(const void* data, size_t limit, Image& image);

}  // namespace driver

// ---- modules.cpp -----------------------------------------------------------------------------------------------------

struct CUmod_st {
  CUcontext context;
  driver::Image image;
  std::map<std::string, std::unique_ptr<CUfunc_st>> functions;
  const driver::ModuleCode* code = nullptr;  // null until the first cuModuleGetFunction
  bool unloaded = false;
  std::mutex compilation = {};  // held while threads compile it or take functions of it
};

struct CUfunc_st {
  CUmodule module;
  std::string name;
  driver::KernelInfo info;
  const driver::KernelCode* code;
  int max_dynamic_shared;  // bytes that a launch may ask for
};
