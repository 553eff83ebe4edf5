// Shared by the losses: the kinds of reduction, and the size of the work space for the reduction over samples.
//
// Each block writes its sum to partials[block] (cross-entropy also its sample count to partials[MAX_BLOCKS + block]); the
// last block adds the partials in a fixed order and resets the ticket.

enum class Reduction { mean, sum, none };

enum { MAX_BLOCKS = 1024 };  // per launch

template <class T>
__device__ __forceinline__ T not_a_number() { return T(__int_as_float(0x7fc00000)); }
