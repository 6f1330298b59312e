/* From the rows of a file to the fragments of gemm.h, a slab at a time. Registers pair rows g and g + 8, so every
 * format goes through pairs of rows: it merges their codes column by column, orders the bytes so that four of them are
 * a lane's word, and deals the words out to lanes. These are short loops over whole blocks, which compilers make
 * vectors of: a model is packed about as fast as memory brings it (tests/bench/results). */
#include "gemm.h"

#include <string.h>

#include "err.h"

enum { BLOCK = 32, SUPER = 256, LANES = 32, STEPS = 4, PAIRS = 8, MAX_SLAB_BYTES = GEMM_SLAB * 4 };

int gemm_format_of(int type)
{
    switch (type) {
    case DT_BF16:
        return GEMM_BF16;
    case DT_F16:
        return GEMM_F16;
    case DT_F32:
        return GEMM_F32;
    case DT_Q8_0:
        return GEMM_Q8_0;
    case DT_Q4_0:
        return GEMM_Q4_0;
    case DT_MXFP4:
        return GEMM_MXFP4;
    case DT_Q4_K:
        return GEMM_Q4_K;
    case DT_Q5_K:
        return GEMM_Q5_K;
    case DT_Q6_K:
        return GEMM_Q6_K;
    case DT_FP8:
        return GEMM_FP8;
    default:
        return -1;
    }
}

static int32_t block_len(enum gemm_format f)
{
    return f == GEMM_Q4_K || f == GEMM_Q5_K || f == GEMM_Q6_K    ? SUPER
           : f == GEMM_FP8                                       ? FP8_BLOCK
           : f == GEMM_Q8_0 || f == GEMM_Q4_0 || f == GEMM_MXFP4 ? BLOCK
                                                                 : 8; /* 16 bytes of x */
}

int gemm_plan(enum gemm_format format, int32_t n_matrix, int32_t n_out, int32_t n_in, struct gemm_weight *w)
{
    if (n_in % block_len(format) || n_in <= 0 || n_out <= 0)
        return -ERR_INVALID;
    int32_t n_slab = (n_in + GEMM_SLAB - 1) / GEMM_SLAB, per_super = gemm_super_slabs(format);
    int32_t n_super = per_super ? (n_slab + per_super - 1) / per_super : 0;
    *w = (struct gemm_weight){.format = format, .n_out = n_out, .n_in = n_in, .n_matrix = n_matrix, .n_slab = n_slab};
    w->n_panel = n_matrix * ((n_out + GEMM_PANEL - 1) / GEMM_PANEL);
    w->panel_bytes =
        (size_t)n_slab * (size_t)gemm_slab_bytes(format) + (size_t)n_super * (size_t)gemm_super_bytes(format);
    return 0;
}

size_t gemm_weight_bytes(const struct gemm_weight *w)
{
    return (size_t)w->n_panel * w->panel_bytes;
}

/* ---- What a slab is made of ---- */

struct source {                     /* rows and columns that the matrix lacks are zeros: codes and scales alike */
    const uint8_t *row[GEMM_PANEL]; /* from the first block on that the slab has columns of */
    int32_t at;                     /* the slab's first column in that block: K formats and FP8 have longer ones */
    uint8_t copy[GEMM_PANEL][MAX_SLAB_BYTES]; /* of rows that end within the slab */
};

static const uint8_t zeros[MAX_SLAB_BYTES];

/* `bytes` of each of n rows, of which they have so many left. */
static void find_source(struct source *s, const uint8_t *rows, size_t row_bytes, int32_t n, size_t bytes, size_t left)
{
    for (int32_t r = 0; r < GEMM_PANEL; r++) {
        s->row[r] = r < n ? rows + (size_t)r * row_bytes : zeros;
        if (r < n && left < bytes) {
            memcpy(s->copy[r], s->row[r], left);
            memset(s->copy[r] + left, 0, bytes - left);
            s->row[r] = s->copy[r];
        }
    }
}

/* ---- Steps that formats share ---- */

/* a[0], b[0], a[1], b[1] .. of n each. */
static inline void interleave(uint8_t *restrict out, const uint8_t *restrict a, const uint8_t *restrict b, int n)
{
    for (int i = 0; i < n; i++) {
        out[2 * i] = a[i];
        out[2 * i + 1] = b[i];
    }
}

/* Words [4][lane] become [lane][4], of the four lanes of a row. */
static inline void put_lanes(uint8_t *restrict out, const uint32_t word[4][4])
{
    for (int t = 0; t < 4; t++)
        for (int i = 0; i < 4; i++)
            memcpy(out + 16 * t + 4 * i, &word[i][t], 4);
}

/* Eight codes of a byte each, as they come; this and what follows is for little-endian hosts, as all with a GPU are. */
static inline uint64_t eight(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* A byte to each half word of four. */
static inline uint64_t spread(uint64_t v)
{
    v &= 0xffffffff;
    v = (v | v << 16) & 0x0000ffff0000ffff;
    return (v | v << 8) & 0x00ff00ff00ff00ff;
}

/* Words of four lanes: a byte of a, one of b, and again. */
static inline void interleave_8(uint32_t word[4], uint64_t a, uint64_t b)
{
    uint64_t low = spread(a) | spread(b) << 8, high = spread(a >> 32) | spread(b >> 32) << 8;
    word[0] = (uint32_t)low;
    word[1] = (uint32_t)(low >> 32);
    word[2] = (uint32_t)high;
    word[3] = (uint32_t)(high >> 32);
}

/* `bits` bits from bit `shift` on of eight codes of two rows, row a's below row b's. */
static inline uint64_t merge(uint64_t a, uint64_t b, int shift, int bits)
{
    uint64_t mask = 0x0101010101010101 * ((1u << bits) - 1);
    return (a >> shift & mask) | (b >> shift & mask) << bits;
}

/* Of n bytes whose low halves are codes, and whose high halves are those that follow. */
static inline void merge_nibbles(uint64_t *out, const uint8_t *a, const uint8_t *b, int n)
{
    for (int i = 0; i < n / 8; i++)
        for (int h = 0; h < 2; h++)
            out[n / 8 * h + i] = merge(eight(a + 8 * i), eight(b + 8 * i), 4 * h, 4);
}

/* The words of 4 bits of pair g, from its merged columns. */
static inline void put_nibbles(uint8_t *out, int g, const uint64_t both[8])
{
    uint32_t word[STEPS][4];
    for (int s = 0; s < STEPS; s++)
        interleave_8(word[s], both[2 * s], both[2 * s + 1]);
    put_lanes(out + g * 64, (const uint32_t(*)[4])word);
}

/* The words of 8 bits of pair g, of 32 columns. */
static inline void put_bytes(uint8_t *out, int g, int half, const uint8_t *a, const uint8_t *b)
{
    uint32_t word[4][4];
    interleave((uint8_t *)word, a, b, BLOCK);
    put_lanes(out + (half * LANES + g * 4) * 16, (const uint32_t(*)[4])word);
}

/* ---- Floats ---- */

static void pack_16(const struct source *from, uint8_t *slab, uint8_t *super)
{
    (void)super;
    for (int g = 0; g < PAIRS; g++)
        for (int s = 0; s < STEPS; s++) {
            const uint8_t *a = from->row[g] + 32 * s, *b = from->row[g + 8] + 32 * s;
            uint32_t word[4][4];
            for (int r = 0; r < 4; r++)
                memcpy(word[r], (r & 1 ? b : a) + 16 * (r >> 1), 16);
            put_lanes(slab + (s * LANES + g * 4) * 16, (const uint32_t(*)[4])word);
        }
}

static void pack_32(const struct source *from, uint8_t *slab, uint8_t *super)
{
    (void)super;
    for (int g = 0; g < PAIRS; g++)
        for (int i = 0; i < 2 * STEPS; i++) /* 8 columns, two a lane */
            for (int t = 0; t < 4; t++) {
                uint8_t *out = slab + (i * LANES + g * 4 + t) * 16;
                memcpy(out, from->row[g] + 32 * i + 8 * t, 8);
                memcpy(out + 8, from->row[g + 8] + 32 * i + 8 * t, 8);
            }
}

/* ---- Blocks of 32 with a scale in front ---- */

static void pack_q8_0(const struct source *from, uint8_t *slab, uint8_t *super)
{
    enum { BYTES = 2 + BLOCK };
    (void)super;
    for (int g = 0; g < PAIRS; g++)
        for (int half = 0; half < 2; half++) {
            const uint8_t *a = from->row[g] + BYTES * half, *b = from->row[g + 8] + BYTES * half;
            put_bytes(slab, g, half, a + 2, b + 2);
            memcpy(slab + 1024 + (g * 4 + half) * 2, a, 2);
            memcpy(slab + 1024 + (g * 4 + 2 + half) * 2, b, 2);
        }
}

/* Of 4 bits; a scale has so many bytes. */
static inline void pack_blocks_4(const struct source *from, uint8_t *slab, int scale_bytes)
{
    for (int g = 0; g < PAIRS; g++) {
        uint64_t both[8];
        uint8_t *scale = slab + 512 + g * 4 * scale_bytes;
        for (int half = 0; half < 2; half++) {
            int at = (scale_bytes + BLOCK / 2) * half;
            const uint8_t *a = from->row[g] + at, *b = from->row[g + 8] + at;
            merge_nibbles(both + 4 * half, a + scale_bytes, b + scale_bytes, BLOCK / 2);
            memcpy(scale + half * scale_bytes, a, (size_t)scale_bytes);
            memcpy(scale + (2 + half) * scale_bytes, b, (size_t)scale_bytes);
        }
        put_nibbles(slab, g, both);
    }
}

static void pack_q4_0(const struct source *from, uint8_t *slab, uint8_t *super)
{
    (void)super;
    pack_blocks_4(from, slab, 2);
}

static void pack_mxfp4(const struct source *from, uint8_t *slab, uint8_t *super)
{
    (void)super;
    pack_blocks_4(from, slab, 1);
}

/* ---- Longer blocks: their own scales are the super's, written with its first slab ---- */

/* Integer scales and minimums of groups i and i + 1 of a Q4_K or Q5_K block, i even: six bits each, those of the last
 * four groups in pieces. */
static inline void k_scales(const uint8_t *p, int i, uint8_t scale[2], uint8_t min[2])
{
    uint16_t at[3], both[2]; /* a byte for each group */
    memcpy(&at[1], p + i, 2);
    memcpy(&at[2], p + i + 4, 2);
    if (i < 4) {
        both[0] = at[1] & 0x3f3f;
        both[1] = at[2] & 0x3f3f;
    } else {
        memcpy(&at[0], p + i - 4, 2);
        both[0] = (uint16_t)((at[2] & 0x0f0f) | (at[0] >> 2 & 0x3030));
        both[1] = (uint16_t)((at[2] >> 4 & 0x0f0f) | (at[1] >> 2 & 0x3030));
    }
    memcpy(scale, &both[0], 2);
    memcpy(min, &both[1], 2);
}

/* Scales of Q4_K and Q5_K, whose blocks begin alike. */
static void put_k_scales(const struct source *from, uint8_t *scales, uint8_t *super)
{
    for (int row = 0; row < GEMM_PANEL; row++) {
        const uint8_t *block = from->row[row];
        uint8_t *own = scales + row % 8 * 8 + row / 8 * 2;
        k_scales(block + 4, from->at / 32, own, own + 4);
        if (from->at == 0)
            memcpy(super + (row % 8 * 2 + row / 8) * 4, block, 4); /* d and dmin */
    }
}

static void pack_q4_k(const struct source *from, uint8_t *slab, uint8_t *super)
{
    int low = 16 + from->at / 2;
    for (int g = 0; g < PAIRS; g++) {
        uint64_t both[8];
        merge_nibbles(both, from->row[g] + low, from->row[g + 8] + low, 32);
        put_nibbles(slab, g, both);
    }
    put_k_scales(from, slab + 512, super);
}

/* The same of high bits, merged again with those of 8 columns on: of each step. A byte of a row has those of every 32nd
 * column. */
static inline void merge_high(uint64_t out[STEPS], const uint8_t *a, const uint8_t *b, int shift, int bits)
{
    for (int s = 0; s < STEPS; s++) {
        const uint8_t *pa = a + s % 2 * 16, *pb = b + s % 2 * 16;
        int from = shift + s / 2 * bits;
        out[s] = merge(eight(pa), eight(pb), from, bits) | merge(eight(pa + 8), eight(pb + 8), from, bits) << 2 * bits;
    }
}

static void pack_q5_k(const struct source *from, uint8_t *slab, uint8_t *super)
{
    int low = 16 + 32 + from->at / 2;
    for (int g = 0; g < PAIRS; g++) {
        const uint8_t *a = from->row[g], *b = from->row[g + 8];
        uint64_t both[8], high[STEPS];
        uint32_t word[4];
        merge_nibbles(both, a + low, b + low, 32);
        put_nibbles(slab, g, both);
        merge_high(high, a + 16, b + 16, from->at / 32, 1);
        interleave_8(word, high[0] | high[1] << 4, high[2] | high[3] << 4);
        memcpy(slab + 512 + g * 16, word, sizeof word);
    }
    put_k_scales(from, slab + 640, super);
}

/* A block: low[2][64], high[2][32], scales, d. Byte j of a half has the low bits of columns j and 64 + j. */
static void pack_q6_k(const struct source *from, uint8_t *slab, uint8_t *super)
{
    int half = from->at / 128, shift = from->at % 128 / 64 * 4;
    for (int g = 0; g < PAIRS; g++) {
        const uint8_t *a = from->row[g], *b = from->row[g + 8];
        uint64_t both[8], high[STEPS];
        uint32_t word[2][4];
        for (int i = 0; i < 8; i++)
            both[i] = merge(eight(a + 64 * half + 8 * i), eight(b + 64 * half + 8 * i), shift, 4);
        put_nibbles(slab, g, both);
        merge_high(high, a + 128 + 32 * half, b + 128 + 32 * half, shift, 2);
        for (int i = 0; i < 2; i++)
            interleave_8(word[i], high[2 * i], high[2 * i + 1]);
        for (int t = 0; t < 4; t++)
            for (int i = 0; i < 2; i++)
                memcpy(slab + 512 + ((g * 4 + t) * 2 + i) * 4, &word[i][t], 4);
        for (int i = 0; i < 2; i++) {
            const uint8_t *block = from->row[g + 8 * i];
            memcpy(slab + 768 + g * 8 + i * 4, block + 192 + from->at / 16, STEPS);
            if (from->at == 0)
                memcpy(super + (g * 2 + i) * 2, block + 208, 2);
        }
    }
}

static void pack_fp8(const struct source *from, uint8_t *slab, uint8_t *super)
{
    for (int g = 0; g < PAIRS; g++) {
        const uint8_t *a = from->row[g], *b = from->row[g + 8];
        for (int half = 0; half < 2; half++)
            put_bytes(slab, g, half, a + 4 + from->at + 32 * half, b + 4 + from->at + 32 * half);
        if (from->at == 0) {
            memcpy(super + g * 8, a, 4);
            memcpy(super + g * 8 + 4, b, 4);
        }
    }
}

/* ---- Panels ---- */

typedef void pack_fn(const struct source *from, uint8_t *slab, uint8_t *super);

static pack_fn *const pack_slab[GEMM_N_FORMAT] = {
    [GEMM_BF16] = pack_16,   [GEMM_F16] = pack_16,      [GEMM_F32] = pack_32,    [GEMM_Q8_0] = pack_q8_0,
    [GEMM_Q4_0] = pack_q4_0, [GEMM_MXFP4] = pack_mxfp4, [GEMM_Q4_K] = pack_q4_k, [GEMM_Q5_K] = pack_q5_k,
    [GEMM_Q6_K] = pack_q6_k, [GEMM_FP8] = pack_fp8,
};

static void pack_panel(const struct gemm_weight *w, uint8_t *panel, int type, const uint8_t *rows, size_t row_bytes,
                       int32_t n)
{
    uint8_t *super = panel + (size_t)w->n_slab * (size_t)gemm_slab_bytes(w->format);
    int32_t len = block_len(w->format) > GEMM_SLAB ? block_len(w->format) : GEMM_SLAB;
    size_t bytes = dtype_row_bytes(type, len), left = dtype_row_bytes(type, w->n_in);
    struct source from;
    for (int32_t column = 0; column < w->n_in; column += len) {
        find_source(&from, rows, row_bytes, n, bytes, left);
        for (from.at = 0; from.at < len; from.at += GEMM_SLAB) {
            pack_slab[w->format](&from, panel, super);
            panel += gemm_slab_bytes(w->format);
        }
        super += gemm_super_bytes(w->format);
        rows += bytes;
        left -= bytes; /* of no meaning after the last */
    }
}

int gemm_pack(const struct gemm_weight *w, int32_t matrix, int32_t row0, int type, const void *rows, size_t row_bytes,
              int32_t n_row)
{
    if (gemm_format_of(type) != (int)w->format || !dtype_row_bytes(type, w->n_in) || row0 % GEMM_PANEL ||
        row0 + n_row > w->n_out)
        return -ERR_INVALID;
    for (int32_t at = 0; at < n_row; at += GEMM_PANEL) {
        int32_t panel = (row0 + at) / GEMM_PANEL * w->n_matrix + matrix;
        int32_t n = n_row - at < GEMM_PANEL ? n_row - at : GEMM_PANEL;
        pack_panel(w, (uint8_t *)w->data + (size_t)panel * w->panel_bytes, type,
                   (const uint8_t *)rows + (size_t)at * row_bytes, row_bytes, n);
    }
    return 0;
}
