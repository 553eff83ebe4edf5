// The tensors of a launch over many, by value: as gpunet.launch.kernel.ListKernel packs them.

constexpr int MAX_TENSORS = 48;
constexpr int ELEMENTS_A_BLOCK = 2048;

template <int LISTS>
struct TensorTable {
  unsigned long long pointers[LISTS][MAX_TENSORS];  // entry t of each list belongs to tensor t
  long long counts[MAX_TENSORS];
  int first_block[MAX_TENSORS + 1];  // of each tensor, and the grid's size after the last
  int tensors;

  template <class T>
  __device__ __forceinline__ T* pointer(int list, int tensor) const {
    return reinterpret_cast<T*>(pointers[list][tensor]);
  }

  // The tensor that this block works on.
  __device__ __forceinline__ int tensor_of_block() const {
    int tensor = 0;
    while (first_block[tensor + 1] <= blockIdx.x) tensor++;
    return tensor;
  }
};
