/* What happens to single rows between the products. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "functions.h"

void CPU_FN(lines_f32)(const float *x, int32_t n, union act_line *line, size_t stride)
{
    int32_t i = 0;
    for (; i + F_LINE <= n; i += F_LINE, line += stride)
        vf_store(line->f, vf_load(x + i));
    if (i < n)
        vf_store(line->f, vf_load_n(x + i, n - i));
}

/* One scale for each 32, the largest element at 127. A block that is not finite gets a scale of NaN, so that a broken
 * row stays visibly broken; one that vanishes, zeros. */
void CPU_FN(lines_int)(const float *x, int32_t n, union act_line *line, size_t stride)
{
    for (int32_t i = 0; i < n; i += Q_LINE, line += stride) {
        vf a = vf_load(x + i), b = vf_load(x + i + 16);
        int32_t bits = vi_hmax(vi_max(vf_abs_bits(a), vf_abs_bits(b))); /* NaN has the largest bits */
        float top;
        memcpy(&top, &bits, sizeof top);
        int sane = top > 1e-30f && top <= FLT_MAX;
        vf inv = vf_set1(sane ? 127 / top : 0);
        vi qa = vi_zero(), qb = vi_zero();
        if (sane) {
            qa = vf_to_int(vf_mul(a, inv));
            qb = vf_to_int(vf_mul(b, inv));
        }
        vi_store_i8(line->q, qa);
        vi_store_i8(line->q + 16, qb);
        int32_t sum_a = vi_sum(qa), sum_b = vi_sum(qb), sum = sum_a + sum_b;
        line->scale = sane ? top / 127 : top * 0;
        line->neg_sum = -line->scale * (float)sum;
        line->off128 = -128 * sum;
        line->off8 = -8 * sum;
        line->off12 = -12 * sum;
        line->off32a = -32 * sum_a;
        line->off32b = -32 * sum_b;
    }
}

float CPU_FN(dot)(const float *a, const float *b, int32_t n)
{
    vf sum = vf_zero();
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        sum = vf_fma(vf_load(a + i), vf_load(b + i), sum);
    if (i < n)
        sum = vf_fma(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i), sum);
    return vf_sum(sum);
}

float CPU_FN(dot_f16)(const uint16_t *a, const uint16_t *b, int32_t n)
{
    vf sum = vf_zero();
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        sum = vf_fma(vf_load_f16(a + i), vf_load_f16(b + i), sum);
    if (i < n) {
        uint16_t tail[2][16] = {{0}};
        memcpy(tail[0], a + i, sizeof *a * (size_t)(n - i));
        memcpy(tail[1], b + i, sizeof *b * (size_t)(n - i));
        sum = vf_fma(vf_load_f16(tail[0]), vf_load_f16(tail[1]), sum);
    }
    return vf_sum(sum);
}

void CPU_FN(rms_norm)(const float *x, const float *weight, float *out, int32_t n, float eps)
{
    vf scale = vf_set1(1 / sqrtf(CPU_FN(dot)(x, x, n) / (float)n + eps));
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(out + i, vf_mul(vf_mul(vf_load(x + i), scale), vf_load(weight + i)));
    if (i < n)
        vf_store_n(out + i, vf_mul(vf_mul(vf_load_n(x + i, n - i), scale), vf_load_n(weight + i, n - i)), n - i);
}

/* n is a multiple of 16. */
void CPU_FN(silu_mul)(float *gate, const float *up, int32_t n)
{
    for (int32_t i = 0; i < n; i += 16) {
        vf g = vf_load(gate + i), e = vf_exp(vf_sub(vf_zero(), g));
        vf_store(gate + i, vf_mul(vf_div(g, vf_add(vf_set1(1), e)), vf_load(up + i)));
    }
}

/* n is a multiple of 16. */
void CPU_FN(gelu_mul)(float *gate, const float *up, int32_t n)
{
    const float c = 0.7978845608f; /* sqrt(2 / pi) */
    for (int32_t i = 0; i < n; i += 16) {
        vf g = vf_load(gate + i), g3 = vf_mul(vf_mul(g, g), g);
        vf t = vf_tanh(vf_mul(vf_fma(g3, vf_set1(0.044715f), g), vf_set1(c)));
        vf half = vf_mul(g, vf_set1(0.5f));
        vf_store(gate + i, vf_mul(vf_fma(half, t, half), vf_load(up + i)));
    }
}

void CPU_FN(soft_cap)(float *x, int32_t n, float scale, float cap)
{
    vf in = vf_set1(scale / cap), out = vf_set1(cap);
    int32_t i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(x + i, vf_mul(vf_tanh(vf_mul(vf_load(x + i), in)), out));
    if (i < n)
        vf_store_n(x + i, vf_mul(vf_tanh(vf_mul(vf_load_n(x + i, n - i), in)), out), n - i);
}

void CPU_FN(kv_store)(int32_t type, const float *x, void *dst, int32_t n)
{
    int32_t i = 0;
    uint16_t *half = dst;
    if (type == DT_F16)
        for (; i + 16 <= n; i += 16)
            vf_store_f16(half + i, vf_load(x + i));
    if (type == DT_BF16)
        for (; i + 16 <= n; i += 16)
            vf_store_bf16(half + i, vf_load(x + i));
    if (i < n)
        dtype_from_f32(type, x + i, half + i, n - i); /* i is 0 unless a tail of halves is left */
}
