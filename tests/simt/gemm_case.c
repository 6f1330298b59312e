#include "gemm_case.h"

#include <string.h>

#include "values.h"

int gemm_case_type(enum gemm_format format)
{
    static const int type[GEMM_N_FORMAT] = {DT_BF16,  DT_F16,  DT_F32,  DT_Q8_0, DT_Q4_0,
                                            DT_MXFP4, DT_Q4_K, DT_Q5_K, DT_Q6_K, DT_FP8};
    return type[format];
}

void gemm_case_open(struct gemm_source *s, enum gemm_format format, int32_t n_matrix, int32_t n_out, int32_t n_in,
                    uint64_t seed)
{
    s->type = gemm_case_type(format);
    ck_assert_int_eq(gemm_plan(format, n_matrix, n_out, n_in, &s->weight), 0);
    size_t n = (size_t)n_matrix * (size_t)n_out * (size_t)n_in, row_bytes = dtype_row_bytes(s->type, n_in);
    float *values = values_f32(seed, n, 0.5f);
    for (size_t i = 0; i < n; i++) /* groups of unlike size and offset, so that a scale in the wrong place shows */
        values[i] = values[i] * (1 + (float)(i / 16 % 7)) + 0.25f * value_at(seed + 1, i / 32);
    s->rows = malloc((size_t)n_matrix * (size_t)n_out * row_bytes);
    dtype_from_f32(s->type, values, s->rows, (int64_t)n);
    free(values);
    s->weight.data = aligned_alloc(16, gemm_weight_bytes(&s->weight));
    memset(s->weight.data, 0xa5, gemm_weight_bytes(&s->weight)); /* packing leaves nothing of it */
    for (int32_t m = 0; m < n_matrix; m++)
        ck_assert_int_eq(gemm_pack(&s->weight, m, 0, s->type, gemm_case_row(s, m, 0), row_bytes, n_out), 0);
}

void gemm_case_close(struct gemm_source *s)
{
    free(s->rows), free(s->weight.data);
}

const uint8_t *gemm_case_row(const struct gemm_source *s, int32_t matrix, int32_t row)
{
    return s->rows + (size_t)(matrix * s->weight.n_out + row) * dtype_row_bytes(s->type, s->weight.n_in);
}

/* ---- The packed form ---- */

struct place { /* of a weight in its slab */
    int lane, s, r, e, g, i;
};

static struct place place_of(int32_t row, int32_t column)
{
    struct place p = {.s = column / 16, .g = row % 8, .i = row / 8, .e = column % 2};
    p.lane = p.g * 4 + column % 8 / 2;
    p.r = p.i + column % 16 / 8 * 2;
    return p;
}

static uint32_t word_at(const uint8_t *p, size_t i)
{
    uint32_t v;
    memcpy(&v, p + 4 * i, sizeof v);
    return v;
}

static float f16_at(const uint8_t *p, int i)
{
    uint16_t v;
    memcpy(&v, p + 2 * i, sizeof v);
    return f16_to_f32(v);
}

static float f32_at(const uint8_t *p, size_t i)
{
    uint32_t u = word_at(p, i);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static uint32_t nibble_at(const uint8_t *slab, struct place p)
{
    return word_at(slab, (size_t)(p.lane * 4 + p.s)) >> (4 * p.r + 16 * p.e) & 15;
}

static uint8_t byte_at(const uint8_t *slab, struct place p)
{
    return slab[(p.s / 2 * 32 + p.lane) * 16 + p.s % 2 * 8 + p.r / 2 * 4 + p.e * 2 + p.r % 2];
}

static float k_value(const uint8_t *scales, const uint8_t *super, struct place p, uint32_t q)
{
    float d = f16_at(super, p.g * 4 + p.i * 2), dmin = f16_at(super, p.g * 4 + p.i * 2 + 1);
    const uint8_t *own = scales + p.g * 8 + p.i * 2 + p.s / 2;
    return d * (float)own[0] * (float)q - dmin * (float)own[4];
}

static float value_of(enum gemm_format f, const uint8_t *slab, const uint8_t *super, struct place p)
{
    static const float e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    int half = p.s / 2;
    uint32_t q;
    switch (f) {
    case GEMM_F32:
        return f32_at(slab, (size_t)(((p.s * 2 + p.r / 2) * 32 + p.lane) * 4 + p.r % 2 * 2 + p.e));
    case GEMM_F16:
        return f16_at(slab, (p.s * 32 + p.lane) * 8 + p.r * 2 + p.e);
    case GEMM_BF16: {
        uint16_t v;
        memcpy(&v, slab + ((p.s * 32 + p.lane) * 8 + p.r * 2 + p.e) * 2, sizeof v);
        return bf16_to_f32(v);
    }
    case GEMM_Q8_0:
        return (float)(int8_t)byte_at(slab, p) * f16_at(slab + 1024, p.g * 4 + p.i * 2 + half);
    case GEMM_FP8:
        return fp8_value(byte_at(slab, p)) * f32_at(super, (size_t)(p.g * 2 + p.i));
    case GEMM_Q4_0:
        return (float)((int)nibble_at(slab, p) - 8) * f16_at(slab + 512, p.g * 4 + p.i * 2 + half);
    case GEMM_MXFP4:
        return e2m1[nibble_at(slab, p)] * ldexpf(1, slab[512 + p.g * 4 + p.i * 2 + half] - 128);
    case GEMM_Q4_K:
        return k_value(slab + 512, super, p, nibble_at(slab, p));
    case GEMM_Q5_K:
        q = word_at(slab + 512, (size_t)p.lane) >> (4 * p.s + p.r + 16 * p.e) & 1;
        return k_value(slab + 640, super, p, nibble_at(slab, p) | q << 4);
    default:
        q = word_at(slab + 512, (size_t)(p.lane * 2 + p.s / 2)) >> (8 * (p.s % 2) + 2 * p.r + 16 * p.e) & 3;
        return f16_at(super, p.g * 2 + p.i) * (float)(int8_t)slab[768 + p.g * 8 + p.i * 4 + p.s] *
               (float)((int)(nibble_at(slab, p) | q << 4) - 32);
    }
}

void gemm_case_unpack(const struct gemm_weight *w, int32_t matrix, int32_t row, float *out)
{
    const uint8_t *panel = (const uint8_t *)w->data + (size_t)(row / 16 * w->n_matrix + matrix) * w->panel_bytes;
    size_t slab_bytes = (size_t)gemm_slab_bytes(w->format);
    int32_t per_super = gemm_super_slabs(w->format);
    for (int32_t k = 0; k < w->n_in; k++) {
        int32_t slab = k / 64;
        const uint8_t *super = panel + (size_t)w->n_slab * slab_bytes;
        if (per_super)
            super += slab / per_super * gemm_super_bytes(w->format);
        out[k] = value_of(w->format, panel + (size_t)slab * slab_bytes, super, place_of(row % 16, k % 64));
    }
}
