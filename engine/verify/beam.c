#include "beam.h"

#include <math.h>

/* ln(1 - e^d) for d < 0. */
static double log1mexp(double d)
{
    return d > -0.6931471805599453 ? log(-expm1(d)) : log1p(-exp(d));
}

/* Noise g with maximum z, moved so that its maximum is psi: -ln(e^-psi - e^-z + e^-g), in the form that survives
 * exponents of any size. */
static double conditioned(double psi, double g, double z)
{
    if (g >= z)
        return psi;
    double v = psi - g + log1mexp(g - z);
    return psi - fmax(0, v) - log1p(exp(-fabs(v)));
}

int32_t beam_expand(struct beam_item from, int32_t parent, const double *q, int32_t n_list, const struct chance *c,
                    struct beam_item *item, int32_t n_item)
{
    int32_t first = n_item;
    double z = -INFINITY;
    for (int32_t i = 0; i < n_list; i++) {
        if (!(q[i] > 0))
            continue;
        double phi = from.phi + log(q[i]), g = phi + c->gumbel(c->self);
        z = fmax(z, g);
        item[n_item++] = (struct beam_item){.phi = phi, .psi = g, .parent = parent, .edge = i};
    }
    for (int32_t i = first; i < n_item; i++)
        item[i].psi = conditioned(from.psi, item[i].psi, z);
    return n_item;
}

/* Ties are as good as impossible; an order for them keeps results the same on every machine. */
static bool above(const struct beam_item *x, const struct beam_item *y)
{
    if (x->psi != y->psi)
        return x->psi > y->psi;
    return x->parent != y->parent ? x->parent < y->parent : x->edge < y->edge;
}

int32_t beam_keep(struct beam_item *item, int32_t n_item, int32_t width)
{
    int32_t n = 0;
    for (int32_t i = 0; i < n_item; i++) { /* item[0..n) are the best of the first i, sorted; n <= i */
        struct beam_item it = item[i];
        if (width == 0 || (n == width && !above(&it, &item[n - 1])))
            continue;
        int32_t at = n < width ? n++ : n - 1;
        for (; at > 0 && above(&it, &item[at - 1]); at--)
            item[at] = item[at - 1];
        item[at] = it;
    }
    return n;
}
