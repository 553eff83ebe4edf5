// Error names and texts, messages with the call that failed, and the check at the head of every call.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "driver.h"

namespace driver {

Settings settings = {1, 0, 0, 0, uint64_t{8} << 30};
std::recursive_mutex state_lock, run_lock;

namespace {
struct Description {
  CUresult code;
  const char *name, *text;
};
#define DESCRIBE(name, text) {name, #name, text}
const Description descriptions[] = {
    DESCRIBE(CUDA_SUCCESS, "no error"),
    DESCRIBE(CUDA_ERROR_INVALID_VALUE, "invalid argument"),
    DESCRIBE(CUDA_ERROR_OUT_OF_MEMORY, "out of memory"),
    DESCRIBE(CUDA_ERROR_NOT_INITIALIZED, "initialization error"),
    DESCRIBE(CUDA_ERROR_DEINITIALIZED, "driver shutting down"),
    DESCRIBE(CUDA_ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
    DESCRIBE(CUDA_ERROR_INVALID_DEVICE, "invalid device ordinal"),
    DESCRIBE(CUDA_ERROR_INVALID_IMAGE, "device kernel image is invalid"),
    DESCRIBE(CUDA_ERROR_INVALID_CONTEXT, "invalid device context"),
    DESCRIBE(CUDA_ERROR_NO_BINARY_FOR_GPU, "no kernel image is available for execution on the device"),
    DESCRIBE(CUDA_ERROR_FILE_NOT_FOUND, "file not found"),
    DESCRIBE(CUDA_ERROR_INVALID_HANDLE, "invalid resource handle"),
    DESCRIBE(CUDA_ERROR_ILLEGAL_STATE, "the operation cannot be performed in the present state"),
    DESCRIBE(CUDA_ERROR_NOT_FOUND, "named symbol not found"),
    DESCRIBE(CUDA_ERROR_NOT_READY, "device not ready"),
    DESCRIBE(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered"),
    DESCRIBE(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"),
    DESCRIBE(CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED, "peer access is already enabled"),
    DESCRIBE(CUDA_ERROR_PEER_ACCESS_NOT_ENABLED, "peer access has not been enabled"),
    DESCRIBE(CUDA_ERROR_PEER_ACCESS_UNSUPPORTED, "peer access is not supported between these two devices"),
    DESCRIBE(CUDA_ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
    DESCRIBE(CUDA_ERROR_ASSERT, "device-side assert triggered"),
    DESCRIBE(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part or all of the requested memory range is already mapped"),
    DESCRIBE(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, "pointer does not correspond to a registered memory region"),
    DESCRIBE(CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned address"),
    DESCRIBE(CUDA_ERROR_LAUNCH_FAILED, "unspecified launch failure"),
    DESCRIBE(CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE, "too many blocks in cooperative launch"),
    DESCRIBE(CUDA_ERROR_NOT_SUPPORTED, "operation not supported"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "operation not permitted when stream is capturing"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "operation failed due to a previous error during capture"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_MERGE, "operation would result in a merge of separate capture sequences"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "capture was not ended in the same stream as it began"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "capturing stream has unjoined work"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "dependency created on uncaptured work in another stream"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
             "operation would make the legacy stream depend on a capturing blocking stream"),
    DESCRIBE(CUDA_ERROR_CAPTURED_EVENT, "operation not permitted on an event last recorded in a capturing stream"),
    DESCRIBE(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
             "attempt to terminate a thread-local capture sequence from another thread"),
};
#undef DESCRIBE

thread_local const char* running_call = nullptr;
thread_local CUresult last_code = CUDA_SUCCESS;
thread_local std::string last_text;

const Description* describe(CUresult code) {
  for (const Description& found : descriptions)
    if (found.code == code) return &found;
  return nullptr;
}

// "cuMemAlloc_v2" is cuMemAlloc to a programmer: cuda.h appends the version.
std::string public_name(const char* function) {
  const std::string name = function ? function : "CUDA";
  const size_t version = name.rfind("_v");
  return version == std::string::npos ? name : name.substr(0, version);
}
}  // namespace

CUresult fail(CUresult code, const char* format, ...) {
  char text[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  last_code = code;
  last_text = public_name(running_call) + ": " + text;
  return code;
}

std::string last_message() { return last_text; }

Call::Call(const char* function) : outer_(running_call) {
  if (!outer_) running_call = function;
}
Call::~Call() { running_call = outer_; }

CUresult Call::refusal() const {
  if (!is_initialised()) return fail(CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called");
  const CUcontext context = current_context();
  if (!context || !context->fault) return CUDA_SUCCESS;
  fail(context->fault, "an earlier error left device %d unusable: %s", context->device, context->fault_message.c_str());
  return context->fault;
}

}  // namespace driver

using namespace driver;

API cuGetErrorName(CUresult code, const char** name) {
  const Description* found = describe(code);
  *name = found ? found->name : nullptr;
  return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

// CUDA's own text; for this thread's last error with the call and the reason behind it.
API cuGetErrorString(CUresult code, const char** text) {
  thread_local std::string full;
  const Description* found = describe(code);
  full = found ? found->text : "unknown error";
  if (code && code == last_code) full += " [" + last_text + "]";
  *text = full.c_str();
  return CUDA_SUCCESS;
}

// ---- calls of tests/driver/__init__.py, which are not CUDA's -------------------------------------------------------------

extern "C" __attribute__((visibility("default"))) void standin_configure(const Settings* wanted) { settings = *wanted; }

// Makes contexts usable again after a sticky error, which on a GPU takes a new process.  Work behind the error never runs.
extern "C" __attribute__((visibility("default"))) void standin_clear_faults() {
  const Lock running(run_lock);
  const Lock lock(state_lock);
  for (int device = 0; device < kMaxDevices; device++) {
    const CUcontext context = primary_context(device);
    if (context->fault) drop_queues(context);
    context->fault = CUDA_SUCCESS;
  }
}
