#include "draft_law.h"

#include <math.h>

/* q less what was drawn, as weights to choose by; returns their sum, taken anew: 1 - (what was drawn) would cancel. */
static double rest_of(const double *q, int32_t n_list, const int16_t *drawn, int32_t n_drawn, double *rest)
{
    double sum = 0;
    for (int32_t i = 0; i < n_list; i++)
        rest[i] = q[i] > 0 ? q[i] : 0;
    for (int32_t j = 0; j < n_drawn; j++)
        rest[drawn[j]] = 0;
    for (int32_t i = 0; i < n_list; i++)
        sum += rest[i];
    return sum;
}

int32_t draft_iid(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn)
{
    for (int32_t j = 0; j < k; j++) {
        int32_t x = c->choose(c->self, q, n_list);
        if (x < 0)
            return j;
        drawn[j] = (int16_t)x;
    }
    return k;
}

bool draft_next(const double *q, int32_t n_list, const struct chance *c, int16_t *drawn, int32_t n_drawn,
                struct draft_share *share)
{
    double rest[PLAN_MAX_LIST], sum = rest_of(q, n_list, drawn, n_drawn, rest), left = 0;
    int32_t x = c->choose(c->self, rest, n_list);
    if (x < 0)
        return false;
    for (int32_t i = 0; i < n_list; i++)
        left += i != x ? rest[i] : 0;
    drawn[n_drawn] = (int16_t)x;
    *share = (struct draft_share){.taken = rest[x] / sum, .left = left / sum};
    return true;
}

int32_t draft_wor(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn)
{
    double value[PLAN_MAX_LIST]; /* of drawn[], descending */
    int32_t n = 0;
    for (int32_t i = 0; i < n_list; i++) {
        if (!(q[i] > 0))
            continue;
        double v = log(q[i]) + c->gumbel(c->self);
        if (n == k && (k == 0 || v <= value[n - 1]))
            continue;
        int32_t at = n < k ? n++ : n - 1;
        for (; at > 0 && v > value[at - 1]; at--) {
            value[at] = value[at - 1];
            drawn[at] = drawn[at - 1];
        }
        value[at] = v;
        drawn[at] = (int16_t)i;
    }
    return n;
}

int32_t draft_greedy(const double *q, int32_t n_list, int32_t k, const struct chance *c, int16_t *drawn)
{
    double rest[PLAN_MAX_LIST];
    int32_t n = 0;
    rest_of(q, n_list, drawn, 0, rest);
    for (; n + 1 < k; n++) {
        int32_t best = -1;
        for (int32_t i = 0; i < n_list; i++)
            if (rest[i] > 0 && (best < 0 || rest[i] > rest[best]))
                best = i;
        if (best < 0)
            return n;
        rest[best] = 0;
        drawn[n] = (int16_t)best;
    }
    int32_t x = k > 0 ? c->choose(c->self, rest, n_list) : -1;
    if (x >= 0)
        drawn[n++] = (int16_t)x;
    return n;
}
