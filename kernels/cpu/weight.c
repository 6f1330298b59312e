#include "weight.h"

#include "dtype_codec.h"

#include <string.h>

/* Block layouts of the file: ggml's documented formats, see dtype.h. */
enum {
    Q8_0_BYTES = 34,
    Q4_0_BYTES = 18,
    Q4_K_BYTES = 144,
    Q5_K_BYTES = 176,
    Q6_K_BYTES = 210,
    MX_BYTES = 17,
    SUPER = 256
};

int weight_plan(const struct tensor *t, struct weight *w, struct err *e)
{
    static const struct {
        int type;
        enum pack pack;
    } known[N_PACK] = {
        {DT_F32, PACK_F32},   {DT_F16, PACK_F16},   {DT_BF16, PACK_BF16}, {DT_Q8_0, PACK_Q8_0},   {DT_Q4_0, PACK_Q4_0},
        {DT_Q4_K, PACK_Q4_K}, {DT_Q5_K, PACK_Q5_K}, {DT_Q6_K, PACK_Q6_K}, {DT_MXFP4, PACK_MXFP4}, {DT_FP8, PACK_FP8},
    };
    *w = (struct weight){.n_out = (int32_t)t->n_row, .n_in = (int32_t)t->n_col};
    int found = 0;
    for (int i = 0; i < N_PACK; i++)
        if (known[i].type == t->type) {
            w->pack = known[i].pack;
            found = 1;
        }
    if (!found || !dtype_row_bytes(t->type, t->n_col))
        return err_set(e, ERR_INVALID, "a tensor of type %d and width %d cannot be used", t->type, (int)t->n_col);
    int32_t line = pack_is_int(w->pack) ? Q_LINE : F_LINE;
    w->n_line = (w->n_in + line - 1) / line;
    w->n_panel = (w->n_out + PANEL - 1) / PANEL;
    if (pack_is_int(w->pack)) {
        size_t n_group = (size_t)(w->n_line + GROUP - 1) / GROUP;
        w->panel_bytes = n_group * pack_head_bytes(w->pack) + (size_t)w->n_line * pack_block_bytes(w->pack);
    } else if (w->pack == PACK_FP8) {
        w->panel_bytes = (size_t)(w->n_in / FP8_BLOCK) * FP8_BLOCK_BYTES;
    } else {
        w->panel_bytes = (size_t)w->n_line * F_LINE * PANEL * (w->pack == PACK_F32 ? 4 : 2);
    }
    return 0;
}

size_t weight_bytes(const struct weight *w)
{
    return (size_t)w->n_panel * w->panel_bytes;
}

/* ---- One group of one row: what lies between the file's bytes and the panel's ---- */

struct group { /* of one weight row; n_block at most 8 */
    int n_block;
    uint8_t code[SUPER]; /* as stored: with the format's offset */
    uint8_t exponent[GROUP];
    uint16_t scale[GROUP], d, dmin;
    uint8_t sub_scale[GROUP], sub_min[GROUP];
    int8_t sub_scale16[2 * GROUP];
};

static uint16_t read_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static void read_q8_0(const uint8_t *p, struct group *g)
{
    for (int b = 0; b < g->n_block; b++, p += Q8_0_BYTES) {
        g->scale[b] = read_u16(p);
        for (int i = 0; i < 32; i++)
            g->code[32 * b + i] = p[2 + i] ^ 128;
    }
}

static void read_q4_0(const uint8_t *p, struct group *g)
{
    for (int b = 0; b < g->n_block; b++, p += Q4_0_BYTES) {
        g->scale[b] = read_u16(p);
        for (int i = 0; i < 16; i++) {
            g->code[32 * b + i] = p[2 + i] & 15;
            g->code[32 * b + 16 + i] = p[2 + i] >> 4;
        }
    }
}

static void read_mxfp4(const uint8_t *p, struct group *g)
{
    for (int b = 0; b < g->n_block; b++, p += MX_BYTES) {
        g->exponent[b] = p[0];
        for (int i = 0; i < 16; i++) {
            g->code[32 * b + i] = p[1 + i] & 15;
            g->code[32 * b + 16 + i] = p[1 + i] >> 4;
        }
    }
}

/* d, dmin and the eight 6-bit scales and minima that Q4_K and Q5_K begin with. */
static void read_k_head(const uint8_t *p, struct group *g)
{
    g->d = read_u16(p);
    g->dmin = read_u16(p + 2);
    const uint8_t *s = p + 4;
    for (int i = 0; i < 4; i++) {
        g->sub_scale[i] = s[i] & 63;
        g->sub_min[i] = s[i + 4] & 63;
        g->sub_scale[i + 4] = (uint8_t)((s[i + 8] & 15) | (s[i] >> 6) << 4);
        g->sub_min[i + 4] = (uint8_t)(s[i + 8] >> 4 | (s[i + 4] >> 6) << 4);
    }
}

static void read_k_nibbles(const uint8_t *p, uint8_t *code)
{
    for (int pair = 0; pair < 4; pair++, p += 32, code += 64)
        for (int i = 0; i < 32; i++) {
            code[i] = p[i] & 15;
            code[32 + i] = p[i] >> 4;
        }
}

static void read_q4_k(const uint8_t *p, struct group *g)
{
    read_k_head(p, g);
    read_k_nibbles(p + 16, g->code);
}

static void read_q5_k(const uint8_t *p, struct group *g)
{
    read_k_head(p, g);
    read_k_nibbles(p + 48, g->code);
    for (int b = 0; b < GROUP; b++)
        for (int i = 0; i < 32; i++)
            g->code[32 * b + i] = (uint8_t)(g->code[32 * b + i] | (p[16 + i] >> b & 1) << 4);
}

static void read_q6_k(const uint8_t *p, struct group *g)
{
    for (int half = 0; half < 2; half++) {
        const uint8_t *lo = p + 64 * half, *hi = p + 128 + 32 * half;
        uint8_t *code = g->code + 128 * half;
        for (int i = 0; i < 32; i++) {
            code[i] = (uint8_t)((lo[i] & 15) | (hi[i] & 3) << 4);
            code[i + 32] = (uint8_t)((lo[i + 32] & 15) | (hi[i] >> 2 & 3) << 4);
            code[i + 64] = (uint8_t)(lo[i] >> 4 | (hi[i] >> 4 & 3) << 4);
            code[i + 96] = (uint8_t)(lo[i + 32] >> 4 | (hi[i] >> 6 & 3) << 4);
        }
    }
    memcpy(g->sub_scale16, p + 192, sizeof g->sub_scale16);
    g->d = read_u16(p + 208);
}

static void read_group(enum pack pack, const uint8_t *row, int index, struct group *g)
{
    size_t i = (size_t)index;
    if (pack == PACK_Q8_0)
        read_q8_0(row + i * GROUP * Q8_0_BYTES, g);
    else if (pack == PACK_Q4_0)
        read_q4_0(row + i * GROUP * Q4_0_BYTES, g);
    else if (pack == PACK_MXFP4)
        read_mxfp4(row + i * GROUP * MX_BYTES, g);
    else if (pack == PACK_Q4_K)
        read_q4_k(row + i * Q4_K_BYTES, g);
    else if (pack == PACK_Q5_K)
        read_q5_k(row + i * Q5_K_BYTES, g);
    else
        read_q6_k(row + i * Q6_K_BYTES, g);
}

/* ---- Into and out of column c of a group of a panel ---- */

static void put_u16(uint8_t *array, int i, uint16_t v)
{
    memcpy(array + 2 * i, &v, 2);
}

static uint16_t get_u16(const uint8_t *array, int i)
{
    uint16_t v;
    memcpy(&v, array + 2 * i, 2);
    return v;
}

static void put_head(enum pack pack, uint8_t *head, int c, const struct group *g)
{
    for (int b = 0; b < g->n_block; b++) {
        if (pack_has_scales(pack)) {
            put_u16(head, PANEL * b + c, g->scale[b]);
        } else if (pack == PACK_MXFP4) {
            head[PANEL * b + c] = g->exponent[b];
        } else if (pack == PACK_Q6_K) {
            head[32 * b + c] = (uint8_t)g->sub_scale16[2 * b];
            head[32 * b + PANEL + c] = (uint8_t)g->sub_scale16[2 * b + 1];
        } else {
            head[PANEL * b + c] = g->sub_scale[b];
            head[128 + PANEL * b + c] = g->sub_min[b];
        }
    }
    if (pack_head_bytes(pack) == HEAD_K) {
        put_u16(head + 256, c, g->d);
        put_u16(head + 288, c, g->dmin); /* Q6_K has none: zero */
    }
}

/* The bytes that a column has in a block, in order. Codes 4v..4v+3 belong to vector v. */
static int stored_bytes(enum pack pack, const uint8_t code[32], uint8_t out[32])
{
    if (pack == PACK_Q8_0) {
        memcpy(out, code, 32);
        return 32;
    }
    for (int i = 0; i < 16; i++)
        out[i] = (uint8_t)((code[i] & 15) | code[16 + i] << 4);
    if (pack == PACK_Q5_K)
        for (int i = 0; i < 4; i++) {
            out[16 + i] = 0;
            for (int v = 0; v < 8; v++)
                out[16 + i] = (uint8_t)(out[16 + i] | code[4 * v + i] >> 4 << v);
        }
    if (pack == PACK_Q6_K)
        for (int i = 0; i < 8; i++) {
            const uint8_t *from = code + i / 4 * 16 + i % 4;
            out[16 + i] = (uint8_t)(from[0] >> 4 | from[4] >> 4 << 2 | from[8] >> 4 << 4 | from[12] >> 4 << 6);
        }
    return pack == PACK_Q5_K ? 20 : pack == PACK_Q6_K ? 24 : 16;
}

static void put_codes(enum pack pack, uint8_t *codes, int c, const struct group *g)
{
    uint8_t bytes[32];
    for (int b = 0; b < g->n_block; b++, codes += pack_block_bytes(pack)) {
        int n = stored_bytes(pack, g->code + 32 * b, bytes);
        for (int i = 0; i < n; i += 4)
            memcpy(codes + 16 * i + 4 * c, bytes + i, 4);
    }
}

static int code_at(enum pack pack, const uint8_t *block, int c, int i)
{
    const uint8_t *at = block + 4 * c + i % 4;
    int v = i / 4, nibble = at[64 * (v % 4)] >> (v < 4 ? 0 : 4) & 15;
    if (pack == PACK_Q8_0)
        return at[64 * v];
    if (pack == PACK_Q5_K)
        return nibble | (at[64 * 4] >> v & 1) << 4;
    if (pack == PACK_Q6_K)
        return nibble | (at[64 * (4 + v / 4)] >> 2 * (v % 4) & 3) << 4;
    return nibble;
}

/* One block of one column as f32, by the formula of dtype_k.c and dtype.c. */
static void block_to_f32(enum pack pack, const uint8_t *head, const uint8_t *block, int b, int c, float *out)
{
    if (pack == PACK_MXFP4) {
        float d = mxfp4_scale(head[PANEL * b + c]);
        for (int i = 0; i < 32; i++)
            out[i] = (float)mxfp4_value[code_at(pack, block, c, i)] * d;
    } else if (pack_has_scales(pack)) {
        float d = f16_to_f32(get_u16(head, PANEL * b + c));
        int offset = pack == PACK_Q8_0 ? 128 : 8;
        for (int i = 0; i < 32; i++)
            out[i] = (float)(code_at(pack, block, c, i) - offset) * d;
    } else if (pack == PACK_Q6_K) {
        float d = f16_to_f32(get_u16(head + 256, c));
        for (int i = 0; i < 32; i++)
            out[i] = d * (float)(int8_t)head[32 * b + PANEL * (i / 16) + c] * (float)(code_at(pack, block, c, i) - 32);
    } else {
        float scale = f16_to_f32(get_u16(head + 256, c)) * (float)head[PANEL * b + c];
        float min = f16_to_f32(get_u16(head + 288, c)) * (float)head[128 + PANEL * b + c];
        for (int i = 0; i < 32; i++)
            out[i] = scale * (float)code_at(pack, block, c, i) - min;
    }
}

static void pack_int_row(const struct weight *w, const uint8_t *src, uint8_t *panel, int c)
{
    for (int32_t g = 0, left = w->n_line; left > 0; g++, left -= GROUP) {
        struct group group = {.n_block = left < GROUP ? left : GROUP};
        read_group(w->pack, src, g, &group);
        put_head(w->pack, panel, c, &group);
        put_codes(w->pack, panel + pack_head_bytes(w->pack), c, &group);
        panel += pack_head_bytes(w->pack) + (size_t)group.n_block * pack_block_bytes(w->pack);
    }
}

/* Where element k of column c stands in a panel, counted in elements. */
static size_t float_at(enum pack pack, int32_t k, int c)
{
    if (pack == PACK_BF16)
        return ((size_t)(k / 2) * PANEL + (size_t)c) * 2 + (size_t)(k % 2);
    return (size_t)k * PANEL + (size_t)c;
}

static void pack_words(int32_t n, const uint8_t *src, uint8_t *panel, int c)
{
    for (int32_t i = 0; i < n; i++)
        memcpy(panel + ((size_t)i * PANEL + (size_t)c) * 4, src + 4 * (size_t)i, 4);
}

static void pack_halves(int32_t n, const uint8_t *src, uint8_t *panel, int c)
{
    for (int32_t i = 0; i < n; i++)
        memcpy(panel + ((size_t)i * PANEL + (size_t)c) * 2, src + 2 * (size_t)i, 2);
}

static void pack_float_row(const struct weight *w, const uint8_t *src, uint8_t *panel, int c)
{
    if (w->pack == PACK_F16)
        pack_halves(w->n_in, src, panel, c);
    else if (w->pack == PACK_F32)
        pack_words(w->n_in, src, panel, c);
    else { /* a word is a pair, of which the last may be half */
        pack_words(w->n_in / 2, src, panel, c);
        for (int32_t k = w->n_in / 2 * 2; k < w->n_in; k++)
            memcpy(panel + 2 * float_at(w->pack, k, c), src + 2 * (size_t)k, 2);
    }
}

/* ---- FP8 ---- */

static void pack_fp8_row(const struct weight *w, const uint8_t *src, uint8_t *panel, int c)
{
    for (int32_t b = 0; b < w->n_in / FP8_BLOCK; b++, src += sizeof(float) + FP8_BLOCK, panel += FP8_BLOCK_BYTES) {
        float scale;
        memcpy(&scale, src, sizeof scale);
        scale *= 256;
        memcpy(panel + sizeof scale * (size_t)c, &scale, sizeof scale);
        for (int k = 0; k < FP8_BLOCK; k++)
            panel[FP8_SCALES + k * PANEL + c] = src[sizeof scale + (size_t)k];
    }
}

static void fp8_row(const struct weight *w, const uint8_t *panel, int c, float *out)
{
    for (int32_t b = 0; b < w->n_in / FP8_BLOCK; b++, panel += FP8_BLOCK_BYTES) {
        float scale;
        memcpy(&scale, panel + sizeof scale * (size_t)c, sizeof scale);
        scale /= 256;
        for (int k = 0; k < FP8_BLOCK; k++)
            *out++ = e4m3_to_f32(panel[FP8_SCALES + k * PANEL + c]) * scale;
    }
}

void weight_pack(const struct weight *w, const struct tensor *t, int32_t p0, int32_t p1)
{
    size_t row_bytes = dtype_row_bytes(t->type, t->n_col);
    for (int32_t p = p0; p < p1; p++)
        for (int32_t c = 0; c < PANEL && p * PANEL + c < w->n_out; c++) {
            const uint8_t *src = (const uint8_t *)t->data + row_bytes * (size_t)(p * PANEL + c);
            uint8_t *panel = w->data + (size_t)p * w->panel_bytes;
            if (pack_is_int(w->pack))
                pack_int_row(w, src, panel, c);
            else if (w->pack == PACK_FP8)
                pack_fp8_row(w, src, panel, c);
            else
                pack_float_row(w, src, panel, c);
        }
}

void weight_row(const struct weight *w, int32_t row, float *out)
{
    const uint8_t *panel = w->data + (size_t)(row / PANEL) * w->panel_bytes;
    int c = row % PANEL;
    if (w->pack == PACK_FP8) {
        fp8_row(w, panel, c, out);
        return;
    }
    if (!pack_is_int(w->pack)) {
        for (int32_t k = 0; k < w->n_in; k++) {
            size_t at = float_at(w->pack, k, c);
            if (w->pack == PACK_F32)
                memcpy(&out[k], panel + 4 * at, 4);
            else
                out[k] = w->pack == PACK_F16 ? f16_to_f32(get_u16(panel + 2 * at, 0))
                                             : bf16_to_f32(get_u16(panel + 2 * at, 0));
        }
        return;
    }
    for (int32_t left = w->n_line; left > 0; left -= GROUP) {
        int n = left < GROUP ? left : GROUP;
        const uint8_t *block = panel + pack_head_bytes(w->pack);
        for (int b = 0; b < n; b++, block += pack_block_bytes(w->pack), out += Q_LINE)
            block_to_f32(w->pack, panel, block, b, c, out);
        panel = block;
    }
}
