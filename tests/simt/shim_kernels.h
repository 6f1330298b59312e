/* Small kernels, right and wrong, that show what the shim does and what it refuses. */
#ifndef GALLEY_SHIM_KERNELS_H
#define GALLEY_SHIM_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum shim_fault {
    FAULT_NONE,
    FAULT_NO_BARRIER_BEFORE, /* after the copies have arrived */
    FAULT_NO_BARRIER_AFTER,  /* before the buffer is filled again */
    FAULT_WRONG_WAIT,        /* one group too few */
    FAULT_NO_WAIT_AT_END,
    FAULT_DIVERGENT_SHUFFLE,
    FAULT_DIVERGENT_BARRIER,
    FAULT_EARLY_EXIT,
    FAULT_NO_WARP_SYNC,
    FAULT_PLAIN_ADD,
    FAULT_MISALIGNED_COPY,
    FAULT_COPY_OUTSIDE,
    FAULT_UNINITIALISED,
};

/* out[i] = sum over tiles t of in[t][n_thread - 1 - i], tiles of n_thread vec4s brought in by cp.async, two at a time.
 */
void shim_tiles(enum shim_fault fault, const float *in, float *out, int n_tile, int n_thread);
/* out[i] = value of thread i ^ 1 by a shuffle, by shared memory and by a ballot of the odd ones; [3][n_thread] */
void shim_exchange(enum shim_fault fault, const float *in, float *out, int n_thread);
/* count[b] = how many of in[n] are b, for b < 16, counted by n_block blocks of 64 threads. */
void shim_count(enum shim_fault fault, const uint32_t *in, int n, uint32_t *count, int n_block);
/* sum[0] = of in[n] by dev_block_sum, sum[1] = the largest by dev_block_max. */
void shim_reduce(const float *in, int n, float *sum, int n_thread);

/* D[16][8] += A[16][16] B[16][8], 16-bit elements, through ldmatrix; is_f16: f16, else bf16. */
void shim_mma16(int is_f16, const uint16_t *a, const uint16_t *b, float *d);
/* D[16][8] += A[16][32] B^T, B stored [8][32], 8-bit elements: s8 to int32, or fp8 to f32. */
void shim_mma_s8(const uint8_t *a, const uint8_t *b, int32_t *d);
void shim_mma_fp8(const uint8_t *a, const uint8_t *b, float *d);

/* Of n values: to f16, bf16, fp8 and back. out[3][n] */
void shim_convert(const float *in, float *out, int n);

#ifdef __cplusplus
}
#endif
#endif
