#include "weight.h"

#include "dtype_codec.h"

#include <string.h>

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

/* ---- Out of a panel ---- */

static uint16_t get_u16(const uint8_t *array, int i)
{
    uint16_t v;
    memcpy(&v, array + 2 * i, 2);
    return v;
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

/* Where element k of column c stands in a panel, counted in elements. */
static size_t float_at(enum pack pack, int32_t k, int c)
{
    if (pack == PACK_BF16)
        return ((size_t)(k / 2) * PANEL + (size_t)c) * 2 + (size_t)(k % 2);
    return (size_t)k * PANEL + (size_t)c;
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
