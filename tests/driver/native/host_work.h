// Work of a library on a stream, as a host function of that stream.  A captured graph may run it again, so it is kept then.
#pragma once
#include <cuda.h>

#include <functional>
#include <utility>

namespace host_work {

struct Task {
  std::function<void()> run;
  bool kept;
};

inline void run_task(void* data) {
  auto* task = static_cast<Task*>(data);
  task->run();
  if (!task->kept) delete task;
}

inline bool enqueue(CUstream stream, std::function<void()> run) {
  CUstreamCaptureStatus status;
  if (cuStreamIsCapturing(stream, &status)) return false;
  return cuLaunchHostFunc(stream, run_task, new Task{std::move(run), status == CU_STREAM_CAPTURE_STATUS_ACTIVE}) ==
         CUDA_SUCCESS;
}

}  // namespace host_work
