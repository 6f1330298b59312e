/* dev.cuh on a GPU: sm_80 and up. Included by dev.cuh only. Each primitive has a twin of the same name and meaning in
 * tests/simt/dev_host.cuh; a change here is a change there. */
#ifndef GALLEY_DEV_PTX_CUH
#define GALLEY_DEV_PTX_CUH

#define KERNEL static __global__ void
#define DEV static __device__ __forceinline__
#define DEV_CONSTANT static __host__ __device__ constexpr /* for sizes that the host wants too */
#define UNROLL _Pragma("unroll")
#define NO_UNROLL _Pragma("unroll 1")

/* Where a collective was called from; only the host twin wants to know. */
#define DEV_AT
#define DEV_HERE
#define DEV_ONLY_HERE

/* Declares T *name, the block's dynamic shared memory. */
#define SMEM_DYN(T, name)                                                                                              \
    extern __shared__ __align__(128) unsigned char dev_smem[];                                                         \
    T *name = (T *)dev_smem

/* Blocks may use more than 48 KiB of shared memory once the kernel has said so. Errors are sticky and found by the
 * caller's next synchronisation. */
#define LAUNCH(kernel, grid, block, smem_bytes, stream, ...)                                                           \
    do {                                                                                                               \
        auto *dev_kernel = kernel;                                                                                     \
        if ((smem_bytes) > 48 * 1024)                                                                                  \
            cudaFuncSetAttribute((const void *)dev_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,                \
                                 (int)(smem_bytes));                                                                   \
        dev_kernel<<<grid, block, smem_bytes, stream>>>(__VA_ARGS__);                                                  \
    } while (0)

/* ---- Bits and fast functions ---- */

DEV float dev_bits_f32(uint32_t u)
{
    return __uint_as_float(u);
}

DEV uint32_t dev_f32_bits(float f)
{
    return __float_as_uint(f);
}

/* A product that the compiler does not fuse with a sum after it, so that it is the same wherever it is taken. */
DEV float dev_mul(float a, float b)
{
    return __fmul_rn(a, b);
}

/* 2^x, relative error below 2^-22; 2^-inf is 0. */
DEV float dev_exp2(float x)
{
    float y;
    asm("ex2.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / x within 1 ulp; 1 / inf is 0. A division keeps eight registers more. */
DEV float dev_reciprocal(float x)
{
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* 1 / sqrt(x), relative error below 2^-22. */
DEV float dev_rsqrt(float x)
{
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* e^x and ln x within 2 ulp: they decide what is drawn. */
DEV float dev_exp(float x)
{
    return expf(x);
}

DEV float dev_log(float x)
{
    return logf(x);
}

/* Two floats to bf16, lo in the low half. */
DEV uint32_t dev_pack_bf16(float lo, float hi)
{
    uint32_t d;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
    return d;
}

DEV uint16_t dev_f16_bits(float x)
{
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}

DEV float dev_f16_value(uint16_t h)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}

/* Each bf16 of a pair times the bf16 `by`. */
DEV uint32_t dev_scale_bf16(uint32_t pair, uint16_t by)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(pair), "r"(by * 0x10001u), "r"(0x80008000u));
    return d;
}

/* The sum of two pairs of bf16, for sums that are exact. */
DEV uint32_t dev_add_bf16(uint32_t a, uint32_t b)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80u), "r"(b));
    return d;
}

DEV int dev_popc(uint64_t x)
{
    return __popcll(x);
}

DEV int dev_lowest_bit(uint64_t x) /* x != 0 */
{
    return __ffsll((long long)x) - 1;
}

/* ---- Warps and blocks ---- */

#define DEV_ALL 0xffffffffu

template <class T> DEV T dev_shfl_xor(T v, int mask)
{
    return __shfl_xor_sync(DEV_ALL, v, mask);
}

DEV uint64_t dev_shfl_xor(uint64_t v, int mask)
{
    return (uint64_t)__shfl_xor_sync(DEV_ALL, (unsigned long long)v, mask);
}

template <class T> DEV T dev_shfl(T v, int lane)
{
    return __shfl_sync(DEV_ALL, v, lane);
}

/* From `delta` lanes below; lanes under delta keep their own. */
template <class T> DEV T dev_shfl_up(T v, int delta)
{
    return __shfl_up_sync(DEV_ALL, v, delta);
}

DEV uint64_t dev_shfl_up(uint64_t v, int delta)
{
    return (uint64_t)__shfl_up_sync(DEV_ALL, (unsigned long long)v, delta);
}

DEV uint32_t dev_ballot(bool p)
{
    return __ballot_sync(DEV_ALL, p);
}

DEV void dev_warp_sync()
{
    __syncwarp();
}

DEV void dev_block_sync()
{
    __syncthreads();
}

/* ---- Memory ---- */

/* 16 bytes that are read once and never written by this launch: past L1, so that weights do not push out what is used
 * again. */
DEV struct vec16 dev_load_stream(const void *p)
{
    struct vec16 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
        : "l"(p));
    return v;
}

DEV void dev_store_stream(void *p, struct vec16 v) /* not read again by this launch */
{
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(v.w[0]), "r"(v.w[1]), "r"(v.w[2]),
                 "r"(v.w[3])
                 : "memory");
}

DEV uint32_t dev_atomic_add(uint32_t *p, uint32_t v) /* global or shared; returns what was there */
{
    return atomicAdd(p, v);
}

DEV void dev_atomic_add(uint64_t *p, uint64_t v)
{
    atomicAdd((unsigned long long *)p, (unsigned long long)v);
}

DEV uint32_t dev_smem_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Copies 16 bytes, global to shared, both 16-byte aligned, behind the caller's back: they are there after dev_copy_wait
 * by the same thread, and for others after a barrier as well. With `there` false 16 zero bytes are written and src is
 * not read. */
DEV void dev_copy16(void *dst_shared, const void *src, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dev_smem_address(dst_shared)), "l"(src),
                 "r"(there ? 16 : 0)
                 : "memory");
}

DEV void dev_copy_commit() /* closes a group of this thread's copies */
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N> DEV void dev_copy_wait() /* until at most the N youngest groups are still on their way */
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- Matrix units: D[16][8] += A[16][k] B[k][8], fragments as in the PTX ISA, "mma.m16n8k16" and "m16n8k32" ---- */

/* Four 8x8 matrices of 16-bit elements; lane 8 i + r names row r of matrix i, which lands in d[i]. */
DEV void dev_ldmatrix(uint32_t d[4], const void *row_shared)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(dev_smem_address(row_shared))
                 : "memory");
}

DEV void dev_ldmatrix_trans(uint32_t d[4], const void *row_shared) /* each matrix transposed */
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                 : "r"(dev_smem_address(row_shared))
                 : "memory");
}

#define DEV_MMA_F32(shape_types, d, a, b)                                                                              \
    asm volatile("mma.sync.aligned." shape_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"    \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3])                                              \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))

DEV void dev_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    DEV_MMA_F32("m16n8k16.row.col.f32.bf16.bf16.f32", d, a, b);
}

DEV void dev_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    DEV_MMA_F32("m16n8k16.row.col.f32.f16.f16.f32", d, a, b);
}

DEV void dev_mma_fp8(float d[4], const uint32_t a[4], const uint32_t b[2]) /* k = 32; sm_89 and up */
{
#if __CUDA_ARCH__ >= 890
    DEV_MMA_F32("m16n8k32.row.col.f32.e4m3.e4m3.f32", d, a, b);
#else
    __trap(); /* the host chooses another kernel */
#endif
}

DEV void dev_mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2]) /* k = 32 */
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, "
                 "%1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
