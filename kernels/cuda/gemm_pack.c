/* From the rows of a file to the fragments of gemm.h. A block of a row is first taken apart into one code an element;
 * then a lane's codes are gathered. */
#include "gemm.h"

#include <string.h>

#include "err.h"

enum { BLOCK = 32, SUPER = 256, LANES = 32, MAX_STEPS = 4, MAX_REGS = 4 };

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

/* ---- A slab of a panel, taken apart ---- */

struct slab {                             /* rows and columns that the matrix lacks are zero */
    uint32_t code[GEMM_PANEL][GEMM_SLAB]; /* of 4, 5, 6, 8, 16 or 32 bits */
    uint8_t scale[GEMM_PANEL][MAX_STEPS]; /* i8, u8 or the exponent: of 16 columns (Q6_K) or of 32 */
    uint8_t min[GEMM_PANEL][2];
    uint16_t d[GEMM_PANEL][2]; /* Q8_0, Q4_0: of 32 columns; K formats: d and dmin of the super */
    float fp8_scale[GEMM_PANEL];
};

static uint16_t u16_at(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

/* Integer scale and minimum of group i of a Q4_K or Q5_K block: six bits each, those of the last four groups in pieces.
 */
static void k_scale(const uint8_t *p, int i, uint8_t *scale, uint8_t *min)
{
    if (i < 4) {
        *scale = p[i] & 63;
        *min = p[i + 4] & 63;
    } else {
        *scale = (uint8_t)((p[i + 4] & 15) | p[i - 4] >> 6 << 4);
        *min = (uint8_t)(p[i + 4] >> 4 | p[i] >> 6 << 4);
    }
}

/* 64 columns from column `at` of a super-block of Q4_K or Q5_K. */
static void read_k(struct slab *s, int r, const uint8_t *block, int at, int fifth)
{
    const uint8_t *low = block + 16 + (fifth ? 32 : 0) + at / 64 * 32, *high = block + 16;
    for (int i = 0; i < GEMM_SLAB; i++) {
        uint32_t q = low[i % 32] >> i / 32 * 4 & 15;
        s->code[r][i] = fifth ? q | (uint32_t)(high[i % 32] >> (at + i) / 32 & 1) << 4 : q;
    }
    for (int h = 0; h < 2; h++)
        k_scale(block + 4, at / 32 + h, &s->scale[r][h], &s->min[r][h]);
    s->d[r][0] = u16_at(block);
    s->d[r][1] = u16_at(block + 2);
}

static void read_q6k(struct slab *s, int r, const uint8_t *block, int at)
{
    const uint8_t *low = block + at / 128 * 64, *high = block + 128 + at / 128 * 32;
    for (int i = 0; i < GEMM_SLAB; i++) {
        int shift = at % 128 / 64 * 4, pair = (at % 128 + i) / 32 * 2;
        s->code[r][i] = (low[i] >> shift & 15) | (uint32_t)(high[i % 32] >> pair & 3) << 4;
    }
    memcpy(s->scale[r], block + 192 + at / 16, MAX_STEPS);
    s->d[r][0] = u16_at(block + 208);
}

static void read_fp8(struct slab *s, int r, const uint8_t *block, int at)
{
    memcpy(&s->fp8_scale[r], block, sizeof s->fp8_scale[r]);
    for (int i = 0; i < GEMM_SLAB; i++)
        s->code[r][i] = block[sizeof s->fp8_scale[r] + (size_t)(at + i)];
}

/* Half a slab of a format with blocks of 32. */
static void read_block(struct slab *s, int r, int half, enum gemm_format f, const uint8_t *block)
{
    uint32_t *code = s->code[r] + 32 * half;
    const uint8_t *q = block + (f == GEMM_MXFP4 ? 1 : 2);
    if (f == GEMM_MXFP4)
        s->scale[r][half] = block[0];
    else
        s->d[r][half] = u16_at(block);
    for (int i = 0; i < BLOCK; i++)
        code[i] = f == GEMM_Q8_0 ? q[i] : (uint32_t)(q[i % 16] >> i / 16 * 4 & 15);
}

/* ---- All formats ---- */

static void read_float(struct slab *s, int r, int type, const uint8_t *row, int at, int n)
{
    for (int i = 0; i < n; i++) {
        if (type == DT_F32)
            memcpy(&s->code[r][i], row + (size_t)(at + i) * 4, 4);
        else
            s->code[r][i] = u16_at(row + (size_t)(at + i) * 2);
    }
}

/* Columns past n_in stay zero: of Q4_0 the scale is, of the others the code. */
static void read_row(struct slab *s, int r, const struct gemm_weight *w, int type, const uint8_t *row, int at)
{
    int n = w->n_in - at < GEMM_SLAB ? w->n_in - at : GEMM_SLAB;
    switch (w->format) {
    case GEMM_BF16:
    case GEMM_F16:
    case GEMM_F32:
        read_float(s, r, type, row, at, n);
        break;
    case GEMM_Q8_0:
    case GEMM_Q4_0:
    case GEMM_MXFP4:
        for (int half = 0; half < n / BLOCK; half++)
            read_block(s, r, half, w->format, row + dtype_row_bytes(type, at + half * BLOCK));
        break;
    case GEMM_Q4_K:
    case GEMM_Q5_K:
        read_k(s, r, row + dtype_row_bytes(type, at / SUPER * SUPER), at % SUPER, w->format == GEMM_Q5_K);
        break;
    case GEMM_Q6_K:
        read_q6k(s, r, row + dtype_row_bytes(type, at / SUPER * SUPER), at % SUPER);
        break;
    default:
        read_fp8(s, r, row + dtype_row_bytes(type, at / FP8_BLOCK * FP8_BLOCK), at % FP8_BLOCK);
    }
}

/* ---- Into fragments ---- */

static void put_u16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put_u32(uint8_t *p, uint32_t v)
{
    put_u16(p, (uint16_t)v);
    put_u16(p + 2, (uint16_t)(v >> 16));
}

/* A lane's codes of step s, [r][e]. */
struct own_codes {
    uint32_t at[MAX_REGS][2];
};

static struct own_codes codes_of(const struct slab *from, int lane, int s)
{
    struct own_codes own;
    for (int r = 0; r < MAX_REGS; r++) {
        const uint32_t *code = from->code[lane / 4 + 8 * (r & 1)] + 16 * s + 8 * (r >> 1) + 2 * (lane % 4);
        own.at[r][0] = code[0];
        own.at[r][1] = code[1];
    }
    return own;
}

static void put_words(uint8_t *p, int lane, int s, const struct own_codes *own) /* of 16 bits */
{
    for (int r = 0; r < MAX_REGS; r++)
        put_u32(p + ((s * LANES + lane) * 4 + r) * 4, own->at[r][0] | own->at[r][1] << 16);
}

static void put_floats(uint8_t *p, int lane, int s, const struct own_codes *own)
{
    for (int r = 0; r < MAX_REGS; r++)
        for (int e = 0; e < 2; e++)
            put_u32(p + (((s * 2 + r / 2) * LANES + lane) * 4 + r % 2 * 2 + e) * 4, own->at[r][e]);
}

static void put_bytes(uint8_t *p, int lane, int s, const struct own_codes *own)
{
    p += (s / 2 * LANES + lane) * 16 + s % 2 * 8;
    for (int r = 0; r < MAX_REGS; r++)
        for (int e = 0; e < 2; e++)
            p[r / 2 * 4 + e * 2 + r % 2] = (uint8_t)own->at[r][e];
}

/* Bits first .. first + bits - 1 of the codes, each register's pair in both halves of a word. */
static uint32_t gather_bits(const struct own_codes *own, int first, int bits)
{
    uint32_t word = 0, mask = (1u << bits) - 1;
    for (int r = 0; r < MAX_REGS; r++)
        word |= (own->at[r][0] >> first & mask) << bits * r | (own->at[r][1] >> first & mask) << (16 + bits * r);
    return word;
}

static void put_codes(enum gemm_format f, uint8_t *p, const struct slab *from)
{
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t high[2] = {0}; /* the bits above the nibbles */
        for (int s = 0; s < MAX_STEPS; s++) {
            struct own_codes own = codes_of(from, lane, s);
            if (f == GEMM_F32)
                put_floats(p, lane, s, &own);
            else if (f == GEMM_BF16 || f == GEMM_F16)
                put_words(p, lane, s, &own);
            else if (f == GEMM_Q8_0 || f == GEMM_FP8)
                put_bytes(p, lane, s, &own);
            else
                put_u32(p + (lane * 4 + s) * 4, gather_bits(&own, 0, 4));
            if (f == GEMM_Q5_K)
                high[0] |= gather_bits(&own, 4, 1) << 4 * s;
            if (f == GEMM_Q6_K)
                high[s / 2] |= gather_bits(&own, 4, 2) << s % 2 * 8;
        }
        if (f == GEMM_Q5_K)
            put_u32(p + 512 + lane * 4, high[0]);
        if (f == GEMM_Q6_K) {
            put_u32(p + 512 + lane * 8, high[0]);
            put_u32(p + 512 + lane * 8 + 4, high[1]);
        }
    }
}

/* Scales of row g + 8 i, at the slab's end and in the super. */
static void put_scales(enum gemm_format f, uint8_t *p, uint8_t *super, const struct slab *from, int g, int i)
{
    int row = g + 8 * i;
    for (int h = 0; h < 2; h++) {
        if (f == GEMM_Q8_0 || f == GEMM_Q4_0)
            put_u16(p + (g * 4 + i * 2 + h) * 2, from->d[row][h]);
        if (f == GEMM_MXFP4)
            p[g * 4 + i * 2 + h] = from->scale[row][h];
        if (f == GEMM_Q4_K || f == GEMM_Q5_K) {
            p[g * 8 + i * 2 + h] = from->scale[row][h];
            p[g * 8 + 4 + i * 2 + h] = from->min[row][h];
            put_u16(super + (g * 4 + i * 2 + h) * 2, from->d[row][h]);
        }
    }
    if (f == GEMM_Q6_K) {
        memcpy(p + g * 8 + i * 4, from->scale[row], MAX_STEPS);
        put_u16(super + (g * 2 + i) * 2, from->d[row][0]);
    }
    if (f == GEMM_FP8)
        memcpy(super + (g * 2 + i) * 4, &from->fp8_scale[row], 4);
}

static int32_t scales_bytes(enum gemm_format f)
{
    return f == GEMM_F32 || f == GEMM_BF16 || f == GEMM_F16 || f == GEMM_FP8 ? 0 : f == GEMM_MXFP4 ? 32 : 64;
}

static void put_slab(const struct gemm_weight *w, uint8_t *panel, int32_t at, const struct slab *from)
{
    int32_t size = gemm_slab_bytes(w->format), per_super = gemm_super_slabs(w->format);
    uint8_t *p = panel + (size_t)at * (size_t)size, *super = panel + (size_t)w->n_slab * (size_t)size;
    if (per_super)
        super += (size_t)(at / per_super) * (size_t)gemm_super_bytes(w->format);
    put_codes(w->format, p, from);
    for (int row = 0; row < GEMM_PANEL; row++)
        put_scales(w->format, p + size - scales_bytes(w->format), super, from, row % 8, row / 8);
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
        for (int32_t slab = 0; slab < w->n_slab; slab++) {
            struct slab s = {0};
            for (int32_t r = 0; r < n; r++)
                read_row(&s, r, w, type, (const uint8_t *)rows + (size_t)(at + r) * row_bytes, slab * GEMM_SLAB);
            put_slab(w, (uint8_t *)w->data + (size_t)panel * w->panel_bytes, slab, &s);
        }
    }
    return 0;
}
