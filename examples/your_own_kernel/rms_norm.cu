// y = x r in each row, with r = 1 / sqrt(mean(x x) + eps).  One block of 128 threads per row.
template <class T>
__global__ void rms_norm(T* y, T* r, const T* x, int columns, double eps) {
  __shared__ T partial[128];
  const T* row = x + blockIdx.x * static_cast<long long>(columns);
  T sum = 0;
  for (int c = threadIdx.x; c < columns; c += 128) sum += row[c] * row[c];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 64; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  const T scale = T(1) / sqrt(partial[0] / columns + T(eps));
  if (threadIdx.x == 0) r[blockIdx.x] = scale;
  for (int c = threadIdx.x; c < columns; c += 128) y[blockIdx.x * static_cast<long long>(columns) + c] = row[c] * scale;
}
