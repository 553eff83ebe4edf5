// The tensors of a launch over lists of tensors, passed by value; packed by gpunet.launch.list_kernel.ListKernel.

constexpr int ELEMENTS_PER_BLOCK = 2048;

template <int LISTS, int CAPACITY>
struct TensorTable {
  unsigned long long pointers[LISTS][CAPACITY];  // entry t of each list belongs to tensor t
  long long counts[CAPACITY];     // elements of each tensor
  int first_block[CAPACITY + 1];  // first block of each tensor, then the grid's size
  int tensors;

  template <class T>
  __device__ __forceinline__ T* pointer(int list, int tensor) const {
    return reinterpret_cast<T*>(pointers[list][tensor]);
  }

  // Returns the index of the tensor that this block processes.
  __device__ __forceinline__ int tensor_of_block() const {
    int tensor = 0, end = tensors;  // each tensor has a block
    while (end - tensor > 1) {
      const int middle = (tensor + end) / 2;
      (first_block[middle] <= blockIdx.x ? tensor : end) = middle;
    }
    return tensor;
  }
};
