// The functions that hopper.cuh calls; defined in mbarrier.cpp, cluster.cpp, bulk.cpp and wgmma.cpp.
#pragma once

namespace emulator {

unsigned int shared_offset(const void* pointer);  // in the block's dynamic shared memory

void mbarrier_init(void* barrier, int arrivals, void* caller);
void mbarrier_inval(void* barrier, void* caller);
void mbarrier_arrive(void* barrier, int arrivals, int bytes, void* caller);
bool mbarrier_try_wait(void* barrier, int parity, void* caller);
void mbarrier_wait(void* barrier, int parity, bool of_cluster, Site site, void* caller);
void mbarrier_arrive_async(void* barrier, void* caller);
void fence_mbarrier_init();
void proxy_fence();
void proxy_fence_shared();

unsigned int cluster_rank();
unsigned int cluster_blocks();
void cluster_arrive(Site site);
void cluster_wait(Site site);
void* map_shared(void* mine, unsigned int rank, void* caller);

void bulk_load(void* to, const void* from, int bytes, void* barrier, void* caller);
void bulk_store(void* to, const void* from, int bytes, void* caller);
void bulk_commit();
void bulk_wait(int left, bool reads_only);
void prefetch_tensor_map(const void* map, void* caller);
void tensor_load(void* to, const void* map, const int* at, int dimensions, void* barrier, unsigned int blocks, void* caller);
void tensor_store(const void* map, const int* at, int dimensions, const void* from, void* caller);

bool elect_one(Site site);
void set_registers(int count, Site site);
void wgmma_fence();
void wgmma_commit(Site site);
void wgmma_wait(int left);
void wgmma(float* d, int n, int format, const unsigned int* a_registers, unsigned long long a, bool a_mn, unsigned long long b,
           bool b_mn, bool accumulate, Site site, void* caller);

}  // namespace emulator
