// Streams, events and graphs.
#include "runtime.h"

using namespace runtime;

CUDART cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return with_context([=] { return cuStreamCreateWithPriority(stream, flags, priority); });
}
CUDART cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
CUDART cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithPriority(stream, 0, 0); }
CUDART cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return with_context([=] { return cuStreamGetFlags(stream, flags); });
}
CUDART cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return with_context([=] { return cuStreamGetPriority(stream, priority); });
}
CUDART cudaStreamDestroy(cudaStream_t stream) { return translate(cuStreamDestroy(stream)); }
CUDART cudaStreamSynchronize(cudaStream_t stream) {
  return with_context([=] { return cuStreamSynchronize(stream); });
}
CUDART cudaStreamQuery(cudaStream_t stream) {
  return with_context([=] { return cuStreamQuery(stream); });
}
CUDART cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return with_context([=] { return cuStreamWaitEvent(stream, event, flags); });
}
CUDART cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t callback, void* data, unsigned flags) {
  return with_context([=] { return cuStreamAddCallback(stream, reinterpret_cast<CUstreamCallback>(callback), data, flags); });
}
CUDART cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return with_context([=] { return cuLaunchHostFunc(stream, function, data); });
}

CUDART cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return with_context([=] { return cuEventCreate(event, flags); });
}
CUDART cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
CUDART cudaEventDestroy(cudaEvent_t event) { return translate(cuEventDestroy(event)); }
CUDART cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return with_context([=] { return cuEventRecord(event, stream); });
}
CUDART cudaEventQuery(cudaEvent_t event) { return translate(cuEventQuery(event)); }
CUDART cudaEventSynchronize(cudaEvent_t event) { return translate(cuEventSynchronize(event)); }
CUDART cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return translate(cuEventElapsedTime(milliseconds, start, end));
}

CUDART cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return with_context([=] { return cuStreamBeginCapture(stream, static_cast<CUstreamCaptureMode>(mode)); });
}
CUDART cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return with_context([=] { return cuStreamEndCapture(stream, graph); });
}
CUDART cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return with_context([=] { return cuStreamIsCapturing(stream, reinterpret_cast<CUstreamCaptureStatus*>(status)); });
}
CUDART cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
  return translate(cuGraphInstantiateWithFlags(exec, graph, flags));
}
CUDART cudaGraphDestroy(cudaGraph_t graph) { return translate(cuGraphDestroy(graph)); }
CUDART cudaGraphExecDestroy(cudaGraphExec_t exec) { return translate(cuGraphExecDestroy(exec)); }
CUDART cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return with_context([=] { return cuGraphLaunch(exec, stream); });
}
CUDART cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
  return with_context([=] { return cuGraphUpload(exec, stream); });
}
CUDART cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned flags) {
  return translate(cuGraphDebugDotPrint(graph, path, flags));
}
