#include "shim_kernels.h"

#include "dev.cuh"

struct tiles_smem {
    struct vec16 tile[2][64];
};

template <int FAULT> KERNEL __launch_bounds__(64) k_tiles(const float *in, float *out, int n_tile)
{
    SMEM_DYN(tiles_smem, s);
    int i = threadIdx.x, n = blockDim.x;
    float sum = 0;
    dev_copy16(FAULT == FAULT_MISALIGNED_COPY ? (char *)&s->tile[0][i] + 4 : (char *)&s->tile[0][i], in + 4 * i, true);
    dev_copy_commit();
    for (int t = 0; t < n_tile; t++) {
        if (t + 1 < n_tile)
            dev_copy16((char *)&s->tile[(t + 1) % 2][i] + (FAULT == FAULT_COPY_OUTSIDE ? sizeof *s : 0),
                       in + 4 * ((t + 1) * n + i), true);
        dev_copy_commit();
        if (FAULT == FAULT_WRONG_WAIT)
            dev_copy_wait<2>();
        else if (!(FAULT == FAULT_NO_WAIT_AT_END && t == n_tile - 1))
            dev_copy_wait<1>();
        if (FAULT != FAULT_NO_BARRIER_BEFORE)
            dev_block_sync();
        sum += dev_bits_f32(s->tile[t % 2][n - 1 - i].w[0]);
        if (FAULT != FAULT_NO_BARRIER_AFTER)
            dev_block_sync();
    }
    out[i] = sum;
}

template <int FAULT> KERNEL k_exchange(const float *in, float *out)
{
    SMEM_DYN(float, s);
    int i = threadIdx.x, n = blockDim.x;
    if (FAULT == FAULT_DIVERGENT_SHUFFLE && i == 3)
        out[i] = dev_shfl_xor(in[i], 1);
    else
        out[i] = dev_shfl_xor(in[i], 1);
    if (FAULT == FAULT_EARLY_EXIT && i == 5)
        return;
    if (FAULT != FAULT_UNINITIALISED || i != 4)
        s[i] = in[i];
    if (FAULT == FAULT_DIVERGENT_BARRIER && i / DEV_WARP)
        dev_block_sync();
    else if (FAULT != FAULT_NO_WARP_SYNC)
        dev_block_sync();
    out[n + i] = s[i ^ 1];
    if (FAULT != FAULT_NO_WARP_SYNC)
        dev_warp_sync();
    s[i] = 0;
    dev_warp_sync();
    out[2 * n + i] = (float)dev_ballot(i & 1) + s[i ^ 1];
}

template <int FAULT> KERNEL k_count(const uint32_t *in, int n, uint32_t *count)
{
    SMEM_DYN(uint32_t, bin);
    if (threadIdx.x < 16)
        bin[threadIdx.x] = 0;
    dev_block_sync();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        if (FAULT == FAULT_PLAIN_ADD)
            bin[in[i]]++;
        else
            dev_atomic_add(&bin[in[i]], 1u);
    }
    dev_block_sync();
    if (threadIdx.x < 16)
        dev_atomic_add(&count[threadIdx.x], bin[threadIdx.x]);
}

KERNEL k_reduce(const float *in, int n, float *out)
{
    SMEM_DYN(float, scratch);
    float sum = 0, top = -INFINITY;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        sum += in[i];
        top = fmaxf(top, in[i]);
    }
    sum = dev_block_sum(sum, scratch);
    top = dev_block_max(top, scratch);
    if (threadIdx.x == blockDim.x - 1) {
        out[0] = sum;
        out[1] = top;
    }
}

struct mma16_smem {
    uint16_t a[16][24], b[16][24]; /* rows of 48 bytes: 16-byte aligned */
};

KERNEL k_mma16(int is_f16, const uint16_t *a, const uint16_t *b, float *d)
{
    SMEM_DYN(mma16_smem, s);
    int lane = threadIdx.x;
    for (int i = lane; i < 16 * 16; i += DEV_WARP) {
        s->a[i / 16][i % 16] = a[i];
        s->b[i / 16][i % 16] = i % 16 < 8 ? b[i / 16 * 8 + i % 16] : 0;
    }
    dev_block_sync();
    uint32_t fa[4], fb[4];
    dev_ldmatrix(fa, &s->a[lane % 16][lane / 16 * 8]);
    dev_ldmatrix_trans(fb, &s->b[lane % 16][lane / 16 * 8]);
    float acc[4];
    for (int r = 0; r < 4; r++)
        acc[r] = d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2];
    if (is_f16)
        dev_mma_f16(acc, fa, fb);
    else
        dev_mma_bf16(acc, fa, fb);
    for (int r = 0; r < 4; r++)
        d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = acc[r];
}

DEV void multiply8(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    dev_mma_s8(d, a, b);
}

DEV void multiply8(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    dev_mma_fp8(d, a, b);
}

template <class T> KERNEL k_mma8(const uint8_t *a, const uint8_t *b, T *d)
{
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t fa[4], fb[2];
    for (int r = 0; r < 4; r++)
        memcpy(&fa[r], &a[(g + r % 2 * 8) * 32 + t * 4 + r / 2 * 16], 4);
    for (int r = 0; r < 2; r++)
        memcpy(&fb[r], &b[g * 32 + t * 4 + r * 16], 4);
    T acc[4];
    for (int r = 0; r < 4; r++)
        acc[r] = d[(g + r / 2 * 8) * 8 + t * 2 + r % 2];
    multiply8(acc, fa, fb);
    for (int r = 0; r < 4; r++)
        d[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = acc[r];
}

KERNEL k_convert(const float *in, float *out, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        out[i] = dev_to_f32(dev_to_f16(in[i]));
        out[n + i] = dev_to_f32(dev_to_bf16(in[i]));
        out[2 * n + i] = dev_bits_f32(dev_widen_fp8(dev_to_fp8(in[i]).u) << 16);
    }
}

template <int FAULT> static void launch_tiles(int fault, const float *in, float *out, int n_tile, int n_thread)
{
    if (fault == FAULT)
        LAUNCH((k_tiles<FAULT>), 1, n_thread, sizeof(tiles_smem), nullptr, in, out, n_tile);
}

void shim_tiles(enum shim_fault fault, const float *in, float *out, int n_tile, int n_thread)
{
    launch_tiles<FAULT_NONE>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_NO_BARRIER_BEFORE>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_NO_BARRIER_AFTER>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_WRONG_WAIT>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_NO_WAIT_AT_END>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_MISALIGNED_COPY>(fault, in, out, n_tile, n_thread);
    launch_tiles<FAULT_COPY_OUTSIDE>(fault, in, out, n_tile, n_thread);
}

template <int FAULT> static void launch_exchange(int fault, const float *in, float *out, int n_thread)
{
    if (fault == FAULT)
        LAUNCH((k_exchange<FAULT>), 1, n_thread, n_thread * sizeof(float), nullptr, in, out);
}

void shim_exchange(enum shim_fault fault, const float *in, float *out, int n_thread)
{
    launch_exchange<FAULT_NONE>(fault, in, out, n_thread);
    launch_exchange<FAULT_DIVERGENT_SHUFFLE>(fault, in, out, n_thread);
    launch_exchange<FAULT_DIVERGENT_BARRIER>(fault, in, out, n_thread);
    launch_exchange<FAULT_EARLY_EXIT>(fault, in, out, n_thread);
    launch_exchange<FAULT_NO_WARP_SYNC>(fault, in, out, n_thread);
    launch_exchange<FAULT_UNINITIALISED>(fault, in, out, n_thread);
}

void shim_count(enum shim_fault fault, const uint32_t *in, int n, uint32_t *count, int n_block)
{
    if (fault == FAULT_NONE)
        LAUNCH(k_count<FAULT_NONE>, n_block, 64, 16 * sizeof(uint32_t), nullptr, in, n, count);
    else
        LAUNCH(k_count<FAULT_PLAIN_ADD>, n_block, 64, 16 * sizeof(uint32_t), nullptr, in, n, count);
}

void shim_reduce(const float *in, int n, float *sum, int n_thread)
{
    LAUNCH(k_reduce, 1, n_thread, DEV_WARP * sizeof(float), nullptr, in, n, sum);
}

void shim_mma16(int is_f16, const uint16_t *a, const uint16_t *b, float *d)
{
    LAUNCH(k_mma16, 1, DEV_WARP, sizeof(mma16_smem), nullptr, is_f16, a, b, d);
}

void shim_mma_s8(const uint8_t *a, const uint8_t *b, int32_t *d)
{
    LAUNCH(k_mma8<int32_t>, 1, DEV_WARP, 0, nullptr, a, b, d);
}

void shim_mma_fp8(const uint8_t *a, const uint8_t *b, float *d)
{
    LAUNCH(k_mma8<float>, 1, DEV_WARP, 0, nullptr, a, b, d);
}

void shim_convert(const float *in, float *out, int n)
{
    LAUNCH(k_convert, 1, 64, 0, nullptr, in, out, n);
}
