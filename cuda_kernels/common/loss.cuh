// What losses share: the reduction over samples, and the launch's work space for it.
//
// Each block leaves its sum in partials[block] (cross-entropy also the samples it counted in partials[MAX_BLOCKS + block]);
// the last block adds them up in a fixed order and sets the ticket back.

enum class Reduction { mean, sum, none };

enum { MAX_BLOCKS = 1024 };  // of a launch

template <class T>
__device__ __forceinline__ T not_a_number() { return T(__int_as_float(0x7fc00000)); }
