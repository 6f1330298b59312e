#include "merge.h"

/* One query's partial `b`, of later positions, into `a`. */
static void merge_query(const struct partial *a, const struct partial *b, int32_t i, int32_t width)
{
    float top = a->top[i] > b->top[i] ? a->top[i] : b->top[i], *to = a->acc + (size_t)i * (size_t)width, one[16];
    const float *from = b->acc + (size_t)i * (size_t)width;
    vf of_a = vf_exp2(vf_set1(a->top[i] - top)), of_b = vf_exp2(vf_set1(b->top[i] - top));
    vf_store(one, vf_fma(vf_set1(b->sum[i]), of_b, vf_mul(vf_set1(a->sum[i]), of_a)));
    a->sum[i] = one[0];
    a->top[i] = top;
    for (int32_t c = 0; c < width; c += 16)
        vf_store(to + c, vf_fma(vf_load(from + c), of_b, vf_mul(vf_load(to + c), of_a)));
}

static void copy_query(const struct partial *a, const struct partial *b, int32_t i, int32_t width)
{
    a->top[i] = b->top[i];
    a->sum[i] = b->sum[i];
    memcpy(a->acc + (size_t)i * (size_t)width, b->acc + (size_t)i * (size_t)width, sizeof(float) * (size_t)width);
}

void CPU_FN(partial_copy)(const struct attend_job *j, float *to, float *from)
{
    struct partial a = partial_of(j, to), b = partial_of(j, from);
    for (int32_t i = 0; to != from && i < j->n_row * j->n_q; i++)
        copy_query(&a, &b, i, attend_width(j));
}

/* A query that sees nothing in one of the two keeps the bits of the other: what it is merged with depends on the rows
 * beside it. */
static void merge(const struct attend_job *j, float *into, float *later)
{
    struct partial a = partial_of(j, into), b = partial_of(j, later);
    for (int32_t i = 0; i < j->n_row * j->n_q; i++)
        if (a.sum[i] == 0)
            copy_query(&a, &b, i, attend_width(j));
        else if (b.sum[i] != 0)
            merge_query(&a, &b, i, attend_width(j));
}

void CPU_FN(pile_add)(struct pile *p, const struct attend_job *j, int32_t at, float **part)
{
    int32_t i = 0;
    for (; at >> i & 1; i++)
        if (p->full >> i & 1) {
            float *earlier = p->run[i];
            merge(j, earlier, *part);
            p->run[i] = *part;
            p->full &= ~(1u << i);
            *part = earlier;
        }
    float *spare = p->run[i];
    p->run[i] = *part;
    p->full |= 1u << i;
    *part = spare;
}

float *CPU_FN(pile_total)(struct pile *p, const struct attend_job *j)
{
    float *total = NULL;
    for (; p->full; p->full &= p->full - 1) { /* shorter runs are the later ones */
        float *earlier = p->run[__builtin_ctz(p->full)];
        if (total)
            merge(j, earlier, total);
        total = earlier;
    }
    return total;
}

/* Of `n` runs that follow each other from number `first` on, `stride` floats apart, to the outputs in j->q. */
void CPU_FN(attend_finish)(const struct attend_job *j, float *part, size_t stride, int32_t first, int32_t n)
{
    struct pile p = {0};
    int32_t width = attend_width(j);
    for (int32_t i = 0; i < n; i++) {
        float *at = part + (size_t)i * stride;
        CPU_FN(pile_add)(&p, j, first + i, &at);
    }
    struct partial all = partial_of(j, CPU_FN(pile_total)(&p, j));
    for (int32_t i = 0; i < j->n_row * j->n_q; i++) {
        const float *acc = all.acc + (size_t)i * (size_t)width;
        float *out = j->q + (size_t)(j->row0 + i / j->n_q) * j->q_stride + i % j->n_q * j->dim;
        vf sum = vf_set1(all.sum[i]);
        int32_t c = 0;
        for (; c + 16 <= j->dim; c += 16)
            vf_store(out + c, vf_div(vf_load(acc + c), sum));
        if (c < j->dim)
            vf_store_n(out + c, vf_div(vf_load(acc + c), sum), j->dim - c);
    }
}
