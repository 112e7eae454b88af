// The GPU operations of the cluster kernel, in PTX. The tests have another file of this name, which runs the kernel on a CPU.
//
// An address in shared memory is a 32-bit number. `peer` maps it to the same place in another block of the cluster.
// Asynchronous stores count their bytes on an mbarrier of the block that they write to.

#pragma once

#include "standard.cuh"

#define SEQCELLS_DEVICE static __device__ __forceinline__
#define SEQCELLS_INLINE __device__ __forceinline__
#define SEQCELLS_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads, 1)
#define SEQCELLS_CONSTANT const __grid_constant__

namespace seqcells {

SEQCELLS_DEVICE int thread_index() { return threadIdx.x; }
SEQCELLS_DEVICE int block_index() { return blockIdx.x; }
SEQCELLS_DEVICE int direction_index() { return blockIdx.y; }
SEQCELLS_DEVICE int cluster_rank() {
    int rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

extern __shared__ __align__(128) char all_shared_memory[];
SEQCELLS_DEVICE char* shared_memory() { return all_shared_memory; }
SEQCELLS_DEVICE uint32_t address_of(const void* place) { return uint32_t(__cvta_generic_to_shared(place)); }
SEQCELLS_DEVICE uint32_t peer(uint32_t address, int rank) {
    uint32_t found;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(found) : "r"(address), "r"(rank));
    return found;
}

// Barriers of a block and of a cluster.
SEQCELLS_DEVICE void block_barrier() { __syncthreads(); }
SEQCELLS_DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// An mbarrier with one arrival. A phase ends after the arrival, when all bytes that it announced have come.
SEQCELLS_DEVICE void mbarrier_init(uint32_t barrier) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(barrier) : "memory");
}
SEQCELLS_DEVICE void mbarriers_are_there() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
SEQCELLS_DEVICE void mbarrier_announce(uint32_t barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
SEQCELLS_DEVICE void mbarrier_wait(uint32_t barrier, int parity) {
    asm volatile(
        "{\n.reg .pred done;\nagain:\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::"r"(barrier), "r"(parity)
        : "memory");
}

SEQCELLS_DEVICE void store_async(uint32_t to, uint32_t barrier, const Chunk& c) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
                 "r"(c.word[0]), "r"(c.word[1]), "r"(c.word[2]), "r"(c.word[3]), "r"(barrier)
                 : "memory");
}

// Copies from global to shared memory asynchronously. If the source is not `there`, zeros are written.
template <int BYTES>
SEQCELLS_DEVICE void copy_async(uint32_t to, const void* from, bool there) {
    const int bytes = there ? BYTES : 0;
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(bytes), "n"(BYTES) : "memory");
}
SEQCELLS_DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING>
SEQCELLS_DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Loads four matrices of 8 rows of 16 bytes. Lane l gives the address of row l % 8 of matrix l / 8, and gets 4 bytes of each
// matrix.
SEQCELLS_DEVICE void load_matrices(uint32_t (&to)[4], uint32_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row));
}

SEQCELLS_DEVICE float to_float(Bfloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
SEQCELLS_DEVICE float to_float(Half x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
}
SEQCELLS_DEVICE float to_float(float x) { return x; }
SEQCELLS_DEVICE uint32_t bits_of_float(float x) { return __float_as_uint(x); }
SEQCELLS_DEVICE void round_to(Bfloat16& to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
SEQCELLS_DEVICE void round_to(Half& to, float x) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
SEQCELLS_DEVICE void round_to(float& to, float x) { to = x; }
// Rounds a number as products read it. Tensor cores read only 10 bits of a float32's mantissa.
template <class S>
SEQCELLS_DEVICE void round_for_product(S& to, float x) {
    round_to(to, x);
}
SEQCELLS_DEVICE void round_for_product(float& to, float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    to = __uint_as_float(bits);
}

// d += a · b, with 16 rows and 8 columns; a and b are 32 bytes deep. The asm is not volatile, so that products may be
// interleaved.
#define SEQCELLS_MMA(shape, type)                                                                                                     \
    asm("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"    \
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                            \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
SEQCELLS_DEVICE void multiply_add(Bfloat16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { SEQCELLS_MMA("m16n8k16", "bf16"); }
SEQCELLS_DEVICE void multiply_add(Half, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { SEQCELLS_MMA("m16n8k16", "f16"); }
SEQCELLS_DEVICE void multiply_add(float, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { SEQCELLS_MMA("m16n8k8", "tf32"); }

SEQCELLS_DEVICE float exp_fast(float x) { return __expf(x); }
SEQCELLS_DEVICE float logarithm(float x) { return logf(x); }
SEQCELLS_DEVICE float divide_fast(float a, float b) { return __fdividef(a, b); }
SEQCELLS_DEVICE float square_root(float x) { return sqrtf(x); }
SEQCELLS_DEVICE float round_down(float x) { return floorf(x); }
SEQCELLS_DEVICE float absolute(float x) { return fabsf(x); }
SEQCELLS_DEVICE float with_sign_of(float x, float size) { return copysignf(size, x); }

}  // namespace seqcells
