/* Weight products on the device: y[n_row][n_out] = x[n_row][n_in] W^T, x in bf16, sums in f32.
 *
 * Weights are repacked once on the host (gemm_pack.c) into the fragments of mma.m16n8k16, W being the A operand, and
 * stay as they were quantised: a panel is 16 outputs, a slab 16 outputs x 64 columns. A panel is n_slab slabs one after
 * the other, then its supers: scales that span several slabs. Tails of rows and columns are zero weights. A lane l of a
 * warp has g = l / 4 and t = l % 4; its weights of a slab are, for step s of 16 columns, register r and half e,
 *
 *     row g + 8 (r & 1), column 16 s + 8 (r >> 1) + 2 t + e          s, r in 0..3, e in 0..1
 *
 *   BF16, F16  [s][lane][r][e]                          2048 bytes a slab
 *   F32        [s][r / 2][lane][r % 2][e]               4096
 *   8 bits     [s / 2][lane][s % 2][r / 2][e][r % 2]    1024       Q8_0: q; FP8: e4m3
 *   4 bits     [lane][s], bits 4 r + 16 e of a word      512       Q4_0, Q4_K: q; MXFP4: the code; else the low 4 bits
 *   5th bits   [lane], bit 4 s + r + 16 e of a word     + 128      Q5_K
 *   5th, 6th   [lane][s / 2], bits 8 (s % 2) + 2 r + 16 e + 256    Q6_K
 *
 * then the slab's scales, [g][..] of rows g and g + 8 (i), of the halves h of 32 columns:
 *
 *   Q8_0, Q4_0  f16 [g][i][h]                           MXFP4  u8 exponent [g][i][h]
 *   Q4_K, Q5_K  u8 scale [g][i][h], then min (8 bytes)  super of 4 slabs: f16 [g][i]{d, dmin}
 *   Q6_K        i8 [g][i][s]                            super of 4 slabs: f16 [g][i]
 *   FP8                                                 super of 2 slabs: f32 [g][i]
 *
 * Results do not depend on the batch, nor on which kernel runs: the columns are cut into GEMM_SLICES ranges by n_in
 * alone, each range is a chain of mma in ascending k, and the ranges are added in ascending order. Quantised formats
 * multiply their integers, exactly, and scale the sum of each group. This takes for granted that a column of an mma's D
 * depends on no other column of B, which the PTX ISA does not say: tests on a device must show it. */
#ifndef GALLEY_CUDA_GEMM_H
#define GALLEY_CUDA_GEMM_H

#include <stddef.h>
#include <stdint.h>

#include "dtype.h"

struct CUstream_st; /* what cudaStream_t and CUstream point to */
struct bf16;

#ifndef GEMM_FN /* device code includes this header with a meaning of its own */
#define GEMM_FN static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum gemm_format {
    GEMM_BF16,
    GEMM_F16,
    GEMM_F32,
    GEMM_Q8_0,
    GEMM_Q4_0,
    GEMM_MXFP4,
    GEMM_Q4_K,
    GEMM_Q5_K,
    GEMM_Q6_K,
    GEMM_FP8, /* codes that are NaN read as 480 */
    GEMM_N_FORMAT
};

enum {
    GEMM_PANEL = 16,      /* outputs */
    GEMM_SLAB = 64,       /* columns */
    GEMM_SLICES = 8,      /* ranges of columns with a sum of their own; some are empty where there are few slabs */
    GEMM_SKINNY_ROWS = 16 /* the most for k_gemm_skinny */
};

struct gemm_weight { /* data belongs to the caller: in host memory when packed, in device memory when launched */
    enum gemm_format format;
    int32_t n_out, n_in; /* of each matrix */
    int32_t n_matrix;    /* 2: gate and up of a GLU, whose panels alternate */
    int32_t n_panel, n_slab;
    size_t panel_bytes;
    void *data; /* [n_panel][panel_bytes], 16-byte aligned */
};

/* ---- Packing (gemm_pack.c) ---- */

/* The format that keeps the values of a dtype; -1: none. */
int gemm_format_of(int type);
/* Shape of the packed form; data is left NULL. -ERR_INVALID: n_in no multiple of 8 or of the format's block. */
int gemm_plan(enum gemm_format format, int32_t n_matrix, int32_t n_out, int32_t n_in, struct gemm_weight *w);
size_t gemm_weight_bytes(const struct gemm_weight *w);
/* Packs n_row rows of n_in elements of `type` (row_bytes apart; may be unaligned) as outputs row0 .. of a matrix. row0
 * is a multiple of 16, and so is n_row unless the rows are the matrix's last. Every byte of their panels is written.
 * Calls for other rows may run at the same time. -ERR_INVALID: not the weight's format. */
int gemm_pack(const struct gemm_weight *w, int32_t matrix, int32_t row0, int type, const void *rows, size_t row_bytes,
              int32_t n_row);

/* ---- Products ---- */

enum gemm_epilogue {
    GEMM_STORE, /* out = y + bias */
    GEMM_ADD,   /* out += y + bias: the residual stream */
    GEMM_GLU,   /* out_bf16 = act(gate) * up, of a weight with two matrices */
};

/* Weights of one shape and format, each for rows of its own: the experts of a layer, or some of them. Only the device
 * knows which rows those are. Places number them, those of a weight together, and results lie by place. */
struct gemm_group {
    int32_t n_weight;
    int32_t most;          /* places of one weight */
    int32_t mean;          /* the same, as it is likely to be: chooses between kernels */
    size_t weight_bytes;   /* from one weight to the next */
    const int32_t *number; /* [n_weight] what `first` knows them by; NULL: 0 .. n_weight - 1 */
    const int32_t *first;  /* number w has places first[w] .. first[w + 1] - 1 */
    const int32_t *row;    /* [n_row] the row of x that stands at each place; NULL: x has them by place */
};

struct gemm_args {
    struct gemm_weight weight;
    const struct bf16 *x;    /* [n_row][x_stride], 16-byte aligned; x_stride a multiple of 8 */
    int32_t n_row, x_stride; /* n_row: of a group, as many places as there may be */
    enum gemm_epilogue epilogue;
    int32_t gelu;          /* GEMM_GLU: act is GELU (tanh); else SiLU */
    const float *bias;     /* [n_out] or NULL; not with GEMM_GLU */
    float *out;            /* [n_row][out_stride] */
    struct bf16 *out_bf16; /* the same, of GEMM_GLU */
    int32_t out_stride;
    int32_t n_block; /* blocks that keep the device busy: where tiles are fewer, slices run side by side */
    float *scratch;  /* gemm_scratch_bytes; NULL: they never do */
    const struct gemm_group *group; /* read before gemm_launch returns; NULL: one weight for all rows */
};
/* Queues the product on `stream`; errors are the device's sticky ones. The results of a row have the same bits whatever
 * n_row, n_block and scratch are, and of a group, whatever its weights' other rows are. */
void gemm_launch(const struct gemm_args *a, struct CUstream_st *stream);

/* The kernels behind it. Skinny: at most GEMM_SKINNY_ROWS rows or a group of any, and no F32. */
void gemm_skinny(const struct gemm_args *a, struct CUstream_st *stream);
void gemm_wide(const struct gemm_args *a, struct CUstream_st *stream);

/* ---- Unpacking (gemm_unpack.cu) ---- */

/* Rows of a packed weight again, of device memory, each value rounded to bf16. */
struct unpack_args {
    struct gemm_weight weight; /* not F32, nor F16: GEMM_BF16 or quantised */
    int32_t matrix, out0;      /* outputs out0 .. out0 + n_out - 1 of this matrix; out0 is a multiple of 16 */
    int32_t n_out;
    struct bf16 *out; /* [n_out][n_in], 16-byte aligned */
};
void gemm_unpack(const struct unpack_args *a, struct CUstream_st *stream);
int gemm_can_unpack(enum gemm_format format);

/* ---- Geometry (gemm_shape.c) ---- */

int gemm_is_skinny(const struct gemm_args *a);
int32_t gemm_skinny_blocks(const struct gemm_weight *w);
/* The most tiles of `rows` places that a group can need, wherever its rows go: a tile has places of one weight. */
int32_t gemm_group_tiles(const struct gemm_args *a, int32_t rows);

struct gemm_tiles { /* the grid of k_gemm_wide */
    int32_t rows;   /* a tile's: 64 or 128; its outputs are GEMM_WIDE_PANELS panels */
    int32_t n_row_tile, n_out_tile;
    int32_t n_slice; /* 1: a block goes through all, as in groups; else GEMM_SLICES, side by side, to be merged */
};
void gemm_tiles(const struct gemm_args *a, struct gemm_tiles *t);
/* The most that gemm_launch writes for up to n_row rows; 0: it needs none. */
size_t gemm_scratch_bytes(const struct gemm_weight *w, int32_t n_row, int32_t n_block);

enum { GEMM_WIDE_PANELS = 8, GEMM_WARPS = 8 };

/* Bytes of a slab's codes and scales. */
GEMM_FN int32_t gemm_slab_bytes(int format)
{
    return format == GEMM_F32                          ? 4096
           : format == GEMM_BF16 || format == GEMM_F16 ? 2048
           : format == GEMM_Q8_0                       ? 1024 + 64
           : format == GEMM_FP8                        ? 1024
           : format == GEMM_Q6_K                       ? 512 + 256 + 64
           : format == GEMM_Q5_K                       ? 512 + 128 + 64
           : format == GEMM_MXFP4                      ? 512 + 32
                                                       : 512 + 64;
}

/* Slabs that share a super; 0: the format has none. */
GEMM_FN int32_t gemm_super_slabs(int format)
{
    return format == GEMM_FP8 ? 2 : format == GEMM_Q4_K || format == GEMM_Q5_K || format == GEMM_Q6_K ? 4 : 0;
}

GEMM_FN int32_t gemm_super_bytes(int format)
{
    return format == GEMM_Q6_K ? 32 : gemm_super_slabs(format) ? 64 : 0;
}

/* What a stage of a pipeline holds for a panel. */
GEMM_FN int32_t gemm_stage_panel_bytes(int format)
{
    return gemm_slab_bytes(format) + gemm_super_bytes(format);
}

GEMM_FN int32_t gemm_stage_bytes(int format, int32_t n_panel, int32_t n_row)
{
    return n_panel * gemm_stage_panel_bytes(format) + n_row * GEMM_SLAB * 2;
}

/* Stages that fit into `limit` bytes: from 2 to 6. */
GEMM_FN int32_t gemm_stages(int32_t stage_bytes, int32_t limit)
{
    return limit / stage_bytes < 2 ? 2 : limit / stage_bytes > 6 ? 6 : limit / stage_bytes;
}

/* A block's shared memory stays below the 99 KiB that every supported device has. */
enum { GEMM_SMEM_BYTES = 96 * 1024 };

GEMM_FN int32_t gemm_skinny_stages(int format, int32_t n_row)
{
    return gemm_stages(gemm_stage_bytes(format, 2, n_row), GEMM_SMEM_BYTES / GEMM_WARPS);
}

GEMM_FN int32_t gemm_skinny_smem_bytes(int format, int32_t n_row) /* n_row: 8 or 16 */
{
    return GEMM_WARPS * gemm_skinny_stages(format, n_row) * gemm_stage_bytes(format, 2, n_row);
}

GEMM_FN int32_t gemm_wide_stages(int format, int32_t n_row)
{
    return gemm_stages(gemm_stage_bytes(format, GEMM_WIDE_PANELS, n_row), GEMM_SMEM_BYTES);
}

GEMM_FN int32_t gemm_wide_smem_bytes(int format, int32_t n_row) /* n_row: 64 or 128 */
{
    return gemm_wide_stages(format, n_row) * gemm_stage_bytes(format, GEMM_WIDE_PANELS, n_row);
}

#ifdef __cplusplus
}
#endif
#endif
