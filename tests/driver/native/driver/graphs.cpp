// Graphs: instantiation, launch, and the nodes for inspection.
#include <stdio.h>

#include <algorithm>

#include "driver.h"

namespace driver {
namespace {

// An order that respects the dependencies.  In lazy mode it is as far from the order of capture as they allow, so that a missing
// dependency shows.
std::vector<std::shared_ptr<CUgraphNode_st>> order_of(const CUgraph_st& graph) {
  if (!settings.lazy) return graph.nodes;
  std::vector<std::shared_ptr<CUgraphNode_st>> order, left = graph.nodes;
  std::set<CUgraphNode> done;
  const auto is_ready = [&](const auto& node) {
    return std::all_of(node->dependencies.begin(), node->dependencies.end(),
                       [&](CUgraphNode before) { return done.count(before); });
  };
  while (!left.empty()) {
    const auto last = std::find_if(left.rbegin(), left.rend(), is_ready);
    done.insert(last->get());
    order.push_back(*last);
    left.erase(std::next(last).base());
  }
  return order;
}

CUresult check_graph(const void* graph, const char* what) {
  return graph ? CUDA_SUCCESS : fail(CUDA_ERROR_INVALID_VALUE, "the %s is null", what);
}

const char* title(CUgraphNodeType type) {
  switch (type) {
    case CU_GRAPH_NODE_TYPE_KERNEL: return "KERNEL";
    case CU_GRAPH_NODE_TYPE_MEMCPY: return "MEMCPY";
    case CU_GRAPH_NODE_TYPE_MEMSET: return "MEMSET";
    case CU_GRAPH_NODE_TYPE_HOST: return "HOST";
    case CU_GRAPH_NODE_TYPE_GRAPH: return "GRAPH";
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC: return "MEM_ALLOC";
    case CU_GRAPH_NODE_TYPE_MEM_FREE: return "MEM_FREE";
    default: return "NODE";
  }
}
}  // namespace
}  // namespace driver

using namespace driver;

API cuGraphCreate(CUgraph* graph, unsigned flags) {
  BEGIN_CALL;
  if (flags) return fail(CUDA_ERROR_INVALID_VALUE, "flags are %u, expected 0", flags);
  *graph = new CUgraph_st;
  return CUDA_SUCCESS;
}
API cuGraphDestroy(CUgraph graph) {
  const Call call(__func__);
  if (const CUresult status = check_graph(graph, "graph")) return status;
  delete graph;
  return CUDA_SUCCESS;
}
API cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph graph, unsigned long long) {
  BEGIN_CALL;
  if (const CUresult status = check_graph(graph, "graph")) return status;
  *exec = new CUgraphExec_st{order_of(*graph)};
  return CUDA_SUCCESS;
}
API cuGraphExecDestroy(CUgraphExec exec) {
  const Call call(__func__);
  if (const CUresult status = check_graph(exec, "executable graph")) return status;
  delete exec;
  return CUDA_SUCCESS;
}
API cuGraphUpload(CUgraphExec exec, CUstream) {
  BEGIN_CALL;
  return check_graph(exec, "executable graph");
}
API cuGraphLaunch(CUgraphExec exec, CUstream stream) {
  BEGIN_CALL;
  if (const CUresult status = check_graph(exec, "executable graph")) return status;
  return enqueue(stream, {CU_GRAPH_NODE_TYPE_GRAPH, "a graph", [order = exec->order]() -> CUresult {
                            for (const auto& node : order) {
                              const CUresult status = node->work.run();
                              if (status) return status;
                            }
                            return CUDA_SUCCESS;
                          }});
}
API cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
  BEGIN_CALL;
  if (const CUresult status = check_graph(graph, "graph")) return status;
  if (!nodes) {
    *count = graph->nodes.size();
    return CUDA_SUCCESS;
  }
  for (size_t i = 0; i < *count; i++) nodes[i] = i < graph->nodes.size() ? graph->nodes[i].get() : nullptr;
  *count = std::min(*count, graph->nodes.size());
  return CUDA_SUCCESS;
}
API cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
  BEGIN_CALL;
  *type = node->work.type;
  return CUDA_SUCCESS;
}
API cuGraphDebugDotPrint(CUgraph graph, const char* path, unsigned flags) {
  BEGIN_CALL;
  if (const CUresult status = check_graph(graph, "graph")) return status;
  FILE* file = fopen(path, "w");
  if (!file) return fail(CUDA_ERROR_OPERATING_SYSTEM, "%s cannot be written", path);
  fputs("digraph dot {\nsubgraph cluster_1 {\nlabel=\"graph_1\" graph[style=\"dashed\"];\n", file);
  for (size_t i = 0; i < graph->nodes.size(); i++)
    fprintf(file, "\"graph_1_node_%zu\"[label=\"%s: %s%s\"];\n", i, title(graph->nodes[i]->work.type),
            graph->nodes[i]->work.name.c_str(),
            flags & CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE
                ? (", after " + std::to_string(graph->nodes[i]->dependencies.size())).c_str()
                : "");
  for (size_t i = 0; i < graph->nodes.size(); i++)
    for (size_t j = 0; j < i; j++) {
      const auto& before = graph->nodes[i]->dependencies;
      if (std::find(before.begin(), before.end(), graph->nodes[j].get()) != before.end())
        fprintf(file, "\"graph_1_node_%zu\" -> \"graph_1_node_%zu\";\n", j, i);
    }
  fputs("}\n}\n", file);
  fclose(file);
  return CUDA_SUCCESS;
}
