/* The optimal acceptance alpha* (section 5, "Towards Optimal Multi-Draft Speculative Decoding"):
 *   alpha* = 1 + min over sets H of tokens of p(H) - Q(H),   Q(H) = Pr(all drafts lie in H).
 * For draws from q with and without replacement a minimising H is a prefix of the tokens sorted by q / p, descending.
 * Tokens off the list have q = 0: in H they would add p and no Q, so they never are. */
#include <math.h>
#include <string.h>

#include "verify_impl.h"

struct ordered { /* the tokens with q > 0, by q / p descending */
    int32_t n;
    double p[PLAN_MAX_LIST], q[PLAN_MAX_LIST];
    double after[PLAN_MAX_LIST]; /* q of all later ones: 1 - (their prefix sum), without cancellation */
};

static void order(struct ordered *o, const struct residual *r)
{
    o->n = 0;
    for (int32_t i = 0; i < r->node->n_list; i++) {
        if (!(r->q[i] > 0))
            continue;
        int32_t at = o->n++;
        for (; at > 0 && r->q[i] * o->p[at - 1] > o->q[at - 1] * r->p[i]; at--) {
            o->p[at] = o->p[at - 1];
            o->q[at] = o->q[at - 1];
        }
        o->p[at] = r->p[i];
        o->q[at] = r->q[i];
    }
    double sum = 0;
    for (int32_t i = o->n - 1; i >= 0; i--) {
        o->after[i] = sum;
        sum += o->q[i];
    }
}

/* all[m]: the probability that every draw lies among the first m + 1 tokens. */
static void all_iid(const struct ordered *o, int32_t k, double *all)
{
    for (int32_t m = 0; m < o->n; m++)
        all[m] = pow(1 - o->after[m], k);
}

/* Two draws without replacement: sum of q_i (S - q_i) / (1 - q_i). Only the largest q can make 1 - q_i cancel, so the
 * others are summed without it. */
static void all_wor2(const struct ordered *o, double *all)
{
    int32_t big = 0;
    double others = 0;
    for (int32_t i = 1; i < o->n; i++)
        if (o->q[i] > o->q[big])
            big = i;
    for (int32_t i = 0; i < o->n; i++)
        others += i != big ? o->q[i] : 0;
    for (int32_t m = 0; m < o->n; m++) {
        double in_others = 0;
        all[m] = 0;
        for (int32_t i = 0; i <= m; i++)
            in_others += i != big ? o->q[i] : 0;
        for (int32_t i = 0; i <= m; i++)
            all[m] += i == big ? o->q[i] * in_others / others
                               : o->q[i] * (in_others - o->q[i] + (big <= m ? o->q[big] : 0)) / (1 - o->q[i]);
    }
}

/* Any k: tokens arrive at exponential times of rate q_i, which is drawing without replacement; all k draws lie in H
 * when k of H arrive before the first of the rest, whose rate is c:
 *   Q = integral over t of c e^(-ct) Pr(at least k of H by t).
 * With t = e^x the integrand falls off as e^((k+1)x) to the left and twice exponentially to the right and is analytic
 * in a strip of half-width pi/2: the trapezoid rule's error is about e^(-pi^2/step), far below rounding. It rises over
 * a width of about 1/sqrt(k), so that many draws need a smaller step. One sweep serves all prefixes. */
static void all_race(const struct ordered *o, int32_t k, double *all)
{
    const double step = k > 8 ? 0.2 * sqrt(8.0 / k) : 0.2;
    double least = o->after[o->n - 2], count[PLAN_MAX_LIST + 1]; /* count[j]: Pr(j have arrived), the last: k or more */
    double x0 = -40.0 / (k + 1), x1 = log(45 / fmax(least, 1e-290));
    memset(all, 0, sizeof *all * (size_t)o->n);
    for (double x = x0; x < x1; x += step) {
        double t = exp(x);
        memset(count, 0, sizeof *count * (size_t)(k + 1));
        count[0] = 1;
        for (int32_t m = 0; m + 1 < o->n; m++) {
            double arrived = -expm1(-o->q[m] * t), not_yet = exp(-o->q[m] * t);
            count[k] += count[k - 1] * arrived;
            for (int32_t j = k - 1; j > 0; j--)
                count[j] = count[j] * not_yet + count[j - 1] * arrived;
            count[0] *= not_yet;
            double rate = o->after[m] * t;
            all[m] += step * rate * exp(-rate) * count[k];
        }
    }
    all[o->n - 1] = 1;
}

static double p_of(const struct ordered *o)
{
    double sum = 0;
    for (int32_t i = 0; i < o->n; i++)
        sum += o->p[i];
    return sum;
}

static double optimum_sampled(const struct residual *r, int32_t k, bool without_replacement)
{
    struct ordered o;
    double all[PLAN_MAX_LIST], p_in = 0, least = 0;
    order(&o, r);
    if (o.n == 0 || k == 0)
        return 0;
    if (without_replacement && k >= o.n) /* all of q's tokens are drawn */
        return p_of(&o);
    if (!without_replacement || k == 1)
        all_iid(&o, k, all);
    else if (k == 2)
        all_wor2(&o, all);
    else
        all_race(&o, k, all);
    for (int32_t m = 0; m < o.n; m++) {
        p_in += o.p[m];
        least = fmin(least, p_in - all[m]);
    }
    return 1 + least;
}

/* All drafts but the last are certain; the last is a draw from q less those: sum of p there, sum of min(p, q~)
 * elsewhere. */
static double optimum_greedy(struct residual *r)
{
    const struct verify_node *u = r->node;
    bool certain[PLAN_MAX_LIST] = {0};
    double sum = 0;
    for (int32_t j = 0; j + 1 < u->n_drawn; j++) {
        certain[u->drawn[j]] = true;
        residual_exclude(r, u->drawn[j]);
    }
    for (int32_t i = 0; i < u->n_list; i++)
        sum += certain[i] ? r->p[i] : fmin(r->p[i], r->q[i]);
    return sum;
}

double verify_optimum(const struct verify_node *u, enum draft_law law)
{
    struct residual r;
    double sum = 0;
    residual_begin(&r, u, 1);
    switch (law) {
    case DRAFT_IID:
    case DRAFT_CHAIN:
        return optimum_sampled(&r, u->n_drawn, false);
    case DRAFT_WOR:
        return optimum_sampled(&r, u->n_drawn, true);
    case DRAFT_GREEDY:
        return u->n_drawn > 0 ? optimum_greedy(&r) : 0;
    default:
        for (int32_t j = 0; j < u->n_drawn; j++)
            sum += r.p[u->drawn[j]];
        return sum;
    }
}
