/* dev.cuh on a CPU, over the shim: the twin of kernels/cuda/dev_ptx.cuh, name for name. Included by dev.cuh only. */
#ifndef GALLEY_DEV_HOST_CUH
#define GALLEY_DEV_HOST_CUH

#include "simt.h"

#define KERNEL static void
#define DEV static inline
#define DEV_CONSTANT static constexpr
#define UNROLL
#define NO_UNROLL
#define __launch_bounds__(...)
#define __restrict__ __restrict

/* Collectives take where they were called from as a last argument that the caller does not write. */
static constexpr simt_site dev_site(const char *file, int line)
{
    return {file, line};
}
#define DEV_AT , simt_site at = dev_site(__builtin_FILE(), __builtin_LINE())
#define DEV_ONLY_AT simt_site at = dev_site(__builtin_FILE(), __builtin_LINE())
#define DEV_HERE , at
#define DEV_ONLY_HERE at

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
#define threadIdx (simt_self->tid)
#define blockIdx (simt_self->block->id)
#define blockDim (simt_self->block->dim)
#define gridDim (simt_self->block->grid)

#define SMEM_DYN(T, name) T *name = (T *)simt_smem()

template <class Body> static void dev_call(void *body)
{
    (*(Body *)body)();
}

/* The kernel with its arguments as they are now: a device, too, gets them by value when the launch is queued. */
template <class T> struct dev_same {
    typedef T type;
};
template <class... P> static auto dev_bind(void (*kernel)(P...), typename dev_same<P>::type... arg)
{
    return [=]() { kernel(arg...); };
}

#define LAUNCH(kernel, grid, block, smem_bytes, stream, ...)                                                           \
    do {                                                                                                               \
        dim3 dev_grid(grid), dev_block(block);                                                                         \
        auto dev_body = dev_bind(kernel, __VA_ARGS__);                                                                 \
        static_assert(__is_trivially_copyable(decltype(dev_body)), "arguments are plain bytes");                       \
        simt_call dev_launch = {#kernel,                                                                               \
                                {dev_grid.x, dev_grid.y, dev_grid.z},                                                  \
                                {dev_block.x, dev_block.y, dev_block.z},                                               \
                                (size_t)(smem_bytes),                                                                  \
                                dev_call<decltype(dev_body)>,                                                          \
                                &dev_body,                                                                             \
                                sizeof dev_body};                                                                      \
        simt_launch(&dev_launch, stream);                                                                              \
    } while (0)

/* ---- Bits and fast functions ---- */

DEV float dev_bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

DEV uint32_t dev_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

DEV float dev_mul(float a, float b)
{
    return a * b;
}

DEV float dev_exp2(float x)
{
    return exp2f(x);
}

DEV float dev_reciprocal(float x)
{
    return 1 / x;
}

DEV float dev_rsqrt(float x)
{
    return 1 / sqrtf(x);
}

DEV float dev_exp(float x)
{
    return expf(x);
}

DEV float dev_log(float x)
{
    return logf(x);
}

DEV uint32_t dev_bf16_bits(float x)
{
    uint32_t u = dev_f32_bits(x);
    return (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

DEV uint32_t dev_pack_bf16(float lo, float hi)
{
    return dev_bf16_bits(hi) << 16 | dev_bf16_bits(lo);
}

DEV uint16_t dev_f16_bits(float x)
{
    uint32_t u = dev_f32_bits(x), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
    if (rest > 0x7f800000)
        return 0x7fff;
    if (rest >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) /* below 2^-14: adding 1/2 leaves the value's multiple of 2^-24 in the low bits */
        return (uint16_t)(sign | (dev_f32_bits(dev_bits_f32(rest) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13);
}

DEV float dev_f16_value(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    if (rest >= 0x7c00)
        return dev_bits_f32(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    return dev_bits_f32(sign | dev_f32_bits(dev_bits_f32(rest << 13) * 0x1p112f)); /* the product is exact */
}

DEV uint32_t dev_scale_bf16(uint32_t pair, uint16_t by)
{
    float f = dev_bits_f32((uint32_t)by << 16);
    return dev_pack_bf16(dev_bits_f32(pair << 16) * f, dev_bits_f32(pair & 0xffff0000) * f);
}

DEV uint32_t dev_add_bf16(uint32_t a, uint32_t b)
{
    return dev_pack_bf16(dev_bits_f32(a << 16) + dev_bits_f32(b << 16),
                         dev_bits_f32(a & 0xffff0000) + dev_bits_f32(b & 0xffff0000));
}

DEV int dev_popc(uint64_t x)
{
    return __builtin_popcountll(x);
}

DEV int dev_lowest_bit(uint64_t x)
{
    return __builtin_ctzll(x);
}

/* ---- Warps and blocks ---- */

template <class T> DEV T dev_from_lane(const char *op, T v, int lane, simt_site at)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "what a shuffle can carry");
    simt_slot *slot = simt_meet(op, at, &v, sizeof v, nullptr);
    memcpy(&v, slot[lane & 31].b, sizeof v);
    return v;
}

template <class T> DEV T dev_shfl_xor(T v, int mask DEV_AT)
{
    return dev_from_lane("shuffle", v, (int)simt_self->lane ^ mask, at);
}

template <class T> DEV T dev_shfl(T v, int lane DEV_AT)
{
    return dev_from_lane("shuffle", v, lane, at);
}

template <class T> DEV T dev_shfl_up(T v, int delta DEV_AT)
{
    int lane = (int)simt_self->lane;
    return dev_from_lane("shuffle", v, lane < delta ? lane : lane - delta, at);
}

DEV uint32_t dev_ballot(bool p DEV_AT)
{
    simt_slot *slot = simt_meet("ballot", at, &p, sizeof p, nullptr);
    uint32_t bits = 0;
    for (int i = 0; i < SIMT_WARP; i++)
        bits |= (uint32_t)slot[i].b[0] << i;
    return bits;
}

DEV void dev_warp_sync(DEV_ONLY_AT)
{
    simt_warp_sync(at);
}

DEV void dev_block_sync(DEV_ONLY_AT)
{
    simt_block_sync(at);
}

/* ---- Memory ---- */

DEV struct vec16 dev_load_stream(const void *p)
{
    return *(const struct vec16 *)p;
}

DEV void dev_store_stream(void *p, struct vec16 v)
{
    *(struct vec16 *)p = v;
}

DEV uint32_t dev_atomic_add(uint32_t *p, uint32_t v)
{
    return simt_atomic_add32(p, v);
}

DEV void dev_atomic_add(uint64_t *p, uint64_t v)
{
    simt_atomic_add64(p, v);
}

DEV void dev_copy16(void *dst_shared, const void *src, bool there DEV_AT)
{
    simt_copy16(dst_shared, src, there, at);
}

DEV void dev_copy_commit()
{
    simt_copy_commit();
}

template <int N> DEV void dev_copy_wait()
{
    simt_copy_wait(N);
}

/* ---- Matrix units ---- */

DEV void dev_load_matrices(uint32_t d[4], const void *row_shared, void (*load)(simt_slot *), simt_site at)
{
    simt_race_touch(row_shared, 16, SIMT_LOADS);
    if ((uintptr_t)row_shared % 16)
        simt_fault(simt_self, "%s:%d: a row for ldmatrix is not aligned to 16 bytes", at.file, at.line);
    struct {
        const void *row;
        uint32_t d[4];
    } in = {row_shared, {}};
    simt_slot *slot = simt_meet("ldmatrix", at, &in, sizeof in, load);
    memcpy(&in, slot[simt_self->lane].b, sizeof in);
    memcpy(d, in.d, sizeof in.d);
}

DEV void dev_ldmatrix(uint32_t d[4], const void *row_shared DEV_AT)
{
    dev_load_matrices(d, row_shared, simt_ldmatrix, at);
}

DEV void dev_ldmatrix_trans(uint32_t d[4], const void *row_shared DEV_AT)
{
    dev_load_matrices(d, row_shared, simt_ldmatrix_trans, at);
}

template <class T>
DEV void dev_mma(T d[4], const uint32_t a[4], const uint32_t b[2], void (*multiply)(simt_slot *), simt_site at)
{
    struct {
        uint32_t a[4], b[2];
        T d[4];
    } in;
    memcpy(in.a, a, sizeof in.a);
    memcpy(in.b, b, sizeof in.b);
    memcpy(in.d, d, sizeof in.d);
    simt_slot *slot = simt_meet("mma", at, &in, sizeof in, multiply);
    memcpy(&in, slot[simt_self->lane].b, sizeof in);
    memcpy(d, in.d, sizeof in.d);
}

DEV void dev_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2] DEV_AT)
{
    dev_mma(d, a, b, simt_mma_bf16, at);
}

DEV void dev_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2] DEV_AT)
{
    dev_mma(d, a, b, simt_mma_f16, at);
}

DEV void dev_mma_fp8(float d[4], const uint32_t a[4], const uint32_t b[2] DEV_AT)
{
    dev_mma(d, a, b, simt_mma_fp8, at);
}

DEV void dev_mma_s8(int32_t d[4], const uint32_t a[4], const uint32_t b[2] DEV_AT)
{
    dev_mma(d, a, b, simt_mma_s8, at);
}

#endif
