/* A mixture of experts (Mixtral, arXiv:2401.04088): each row goes through the few experts its router prefers. */
#include <math.h>

#include "ref.h"

static void softmax(float *x, int32_t n)
{
    float top = -INFINITY;
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        top = fmaxf(top, x[i]);
    for (int32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    for (int32_t i = 0; i < n; i++)
        x[i] = (float)(exp((double)x[i] - top) / sum);
}

/* The k largest of p, the first of equals first; they become -1. */
static void choose(float *p, int32_t n, int32_t k, int32_t *expert, float *weight)
{
    for (int32_t j = 0; j < k; j++) {
        expert[j] = 0;
        for (int32_t i = 1; i < n; i++)
            if (p[i] > p[expert[j]])
                expert[j] = i;
        weight[j] = p[expert[j]];
        p[expert[j]] = -1;
    }
}

void ref_experts(const struct model_desc *d, const struct ref_layer *w, const float *x, float *tmp, float *out)
{
    int32_t n = d->n_expert_used, expert[MODEL_MAX_EXPERT_USED];
    float weight[MODEL_MAX_EXPERT_USED], *p = tmp, *y = p + d->n_expert, *rest = y + d->n_embd, sum = 0;
    ref_matvec(w->router, NULL, x, p, d->n_expert, d->n_embd);
    softmax(p, d->n_expert);
    choose(p, d->n_expert, n, expert, weight);
    for (int32_t j = 0; j < n; j++)
        sum += weight[j];
    for (int32_t i = 0; i < d->n_embd; i++)
        out[i] = 0;
    for (int32_t j = 0; j < n; j++) {
        float share = d->flags & MODEL_EXPERT_SUM_1 ? weight[j] / sum : weight[j];
        ref_gated(d, &w->expert[expert[j]], x, d->n_ff_expert, rest, y);
        for (int32_t i = 0; i < d->n_embd; i++)
            out[i] += share * y[i];
    }
}
