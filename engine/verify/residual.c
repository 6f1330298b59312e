/* One node's p and q while its drafts are tried one after another (sections 6 and 17). */
#include <float.h>

#include "verify_impl.h"

/* What is NaN, infinite or negative has no mass. */
static double clean(double x)
{
    return x > 0 && x <= DBL_MAX ? x : 0;
}

/* Divides by the sum, which is taken anew each time: 1 - (what was taken away) would cancel. Returns it; a sum without
 * a reciprocal counts as 0, and all of x with it. */
static double normalise(double *x, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += x[i];
    double scale = sum >= DBL_MIN ? 1 / sum : 0;
    for (int32_t i = 0; i < n; i++)
        x[i] *= scale;
    return scale > 0 ? sum : 0;
}

void residual_begin(struct residual *r, const struct verify_node *u, double a)
{
    int32_t n = u->n_list;
    r->node = u;
    r->a = a;
    r->touched = false;
    for (int32_t i = 0; i < n; i++) {
        r->p[i] = clean(u->p[i]);
        r->q[i] = u->q ? clean(u->q[i]) : 0;
    }
    r->p[n] = u->draw_off >= 0 ? clean(u->p_off) : 0;
    r->q[n] = 0;
    normalise(r->p, n + 1);
    normalise(r->q, n);
}

double residual_accept(const struct residual *r, int32_t x)
{
    double ap = r->a * r->p[x];
    return ap < r->q[x] ? ap / r->q[x] : r->q[x] > 0;
}

void residual_reject(struct residual *r, int32_t x, bool without_replacement)
{
    int32_t n = r->node->n_list;
    for (int32_t i = 0; i <= n; i++) {
        double rest = r->a * r->p[i] - r->q[i];
        r->p[i] = rest > 0 ? rest : 0;
    }
    double s = normalise(r->p, n + 1), whole = s + (1 - r->a);
    if (whole > 0)
        r->a = s / whole; /* 1 stays 1 */
    r->touched = true;
    if (without_replacement)
        residual_exclude(r, x);
}

void residual_exclude(struct residual *r, int32_t x)
{
    r->q[x] = 0;
    normalise(r->q, r->node->n_list);
}

int32_t residual_token(const struct residual *r, const struct chance *c)
{
    const struct verify_node *u = r->node;
    if (!r->touched && u->draw >= 0)
        return u->draw;
    int32_t i = c->choose(c->self, r->p, u->n_list + 1);
    if (i < 0)
        return u->draw; /* a rejection that was impossible but for rounding */
    return i < u->n_list ? u->list[i] : u->draw_off;
}
