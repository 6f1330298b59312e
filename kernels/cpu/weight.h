/* Weights as the products read them: repacked once, at load. Private to kernels/cpu.
 *
 * A panel is 16 weight rows (output columns), one sequential stream along k. Tails of rows and columns are zero
 * weights.
 *
 *   F32, F16         [k][16 columns]
 *   BF16             [k / 2][16 columns][2]: a pair fills a lane, and each half of it is an f32 for one operation
 *   FP8              blocks of 128 k: f32 scale[16], 256 times the file's, then e4m3 codes [k][16 columns]. Read as the
 *                    upper byte of an f16, a code is 1 / 256 of what it stands for
 *   the others       groups of 8 blocks of 32 k: a head, then the blocks' codes. The last group may be shorter.
 *                    A block's codes are 8 vectors of 64 bytes: 16 columns x 4 k, so that one vpdpbusd advances 16
 *                    outputs by 4 k. Of fewer than 8 bits, vector i lies in the low halves of the stored vector i, and
 *                    vector i + 4 in the high halves; a fifth and sixth stored vector have the bits above the nibbles:
 *                    of Q5_K bit i of the fifth for vector i, of Q6_K two bits from bit 2 i on, the sixth for 4..7.
 *     Q8_0   head: f16 scale[8][16]                                                 codes: q + 128, 8 bits
 *     Q4_0   head: f16 scale[8][16]                                                 codes: q, 4 bits
 *     Q4_K   head: u8 scale[8][16], u8 min[8][16], f16 d[16], f16 dmin[16]          codes: q, 4 bits
 *     Q5_K   the same                                                               codes: q, 5 bits
 *     Q6_K   head: i8 scale[8][2][16], f16 d[16], 32 bytes of nothing               codes: q, 6 bits
 *     MXFP4  head: u8 exponent[8][16]                                               codes: as in the file, 4 bits
 */
#ifndef GALLEY_CPU_WEIGHT_H
#define GALLEY_CPU_WEIGHT_H

#include "isa.h"

/* Raised whenever a packed byte of any format changes, so that caches of earlier layouts are known for what they are; a
 * test compares hashes of packed tensors with those of this version. */
enum { WEIGHT_LAYOUT = 2 };

enum { FP8_SCALES = 64, FP8_BLOCK_BYTES = FP8_SCALES + 16 * FP8_BLOCK };
enum { GROUP = 8, HEAD_EXPONENTS = 128, HEAD_SCALES = 256, HEAD_K = 320 };

struct weight { /* data borrowed from the model's arena */
    enum pack pack;
    int32_t n_out, n_in; /* rows and columns of the tensor */
    int32_t n_line;      /* act_lines of an input row */
    int32_t n_panel;
    size_t panel_bytes;
    uint8_t *data; /* NULL: the model has no such tensor */
};

static inline int pack_is_int(enum pack p)
{
    return p >= PACK_FIRST_INT;
}

static inline int pack_has_scales(enum pack p)
{
    return p == PACK_Q8_0 || p == PACK_Q4_0;
}

static inline size_t pack_head_bytes(enum pack p)
{
    return p == PACK_MXFP4 ? HEAD_EXPONENTS : pack_has_scales(p) ? HEAD_SCALES : HEAD_K;
}

/* Vectors of 64 bytes that a block's codes take. */
static inline int pack_vectors(enum pack p)
{
    return p == PACK_Q8_0 ? 8 : p == PACK_Q6_K ? 6 : p == PACK_Q5_K ? 5 : 4;
}

static inline size_t pack_block_bytes(enum pack p)
{
    return 64 * (size_t)pack_vectors(p);
}

/* Shape and size of the packed form; data is left NULL. -ERR_INVALID when the type is unknown. */
int weight_plan(const struct tensor *t, struct weight *w, struct err *e);
size_t weight_bytes(const struct weight *w);
/* Fills panels p0..p1-1 of w->data, which is zeroed memory. */
void weight_pack(const struct weight *w, const struct tensor *t, int32_t p0, int32_t p1);
/* Row `row` as f32: the values that the file's format stands for. */
void weight_row(const struct weight *w, int32_t row, float *out);

#endif
