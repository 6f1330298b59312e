#include "ngram/superposed.h"

#include <math.h>

#include "err.h"

void superposed_params_init(struct superposed_params *p)
{
    *p = (struct superposed_params){
        .n_draft = 3, .alpha = .54, .tau = .06, .lambda = {.01, .04, .15, .18, .12}, .penalty = 200};
}

/* ---- scores ---- */

/* ln P of each kept token: softmax of logprob / tau, over the finite ones. */
static void shared_law(const struct superposed_params *p, const struct superposed_top *top, double *log_p)
{
    double max = -INFINITY, sum = 0;
    for (int32_t v = 0; v < top->n; v++) {
        log_p[v] = isfinite(top->logprob[v]) ? top->logprob[v] / p->tau : -INFINITY;
        max = fmax(max, log_p[v]);
    }
    for (int32_t v = 0; v < top->n; v++)
        sum += log_p[v] > -INFINITY ? exp(log_p[v] - max) : 0;
    for (int32_t v = 0; v < top->n; v++)
        log_p[v] = log_p[v] > -INFINITY ? log_p[v] - max - log(sum) : -INFINITY;
}

/* G_i(v): the shares of the tokens after the draft's last one to five, weighted by lambda. */
static void foreseen(const struct superposed_params *p, const struct ngram *store, const struct superposed_top *top,
                     const struct superposed_draft *d, double *g)
{
    uint32_t count[SUPERPOSED_MAX_TOP];
    for (int32_t v = 0; v < top->n; v++)
        g[v] = 0;
    for (int32_t n_ctx = 1; store && n_ctx < store->max_n && n_ctx <= d->n; n_ctx++) {
        uint32_t total = ngram_counts(store, d->tok + d->n - n_ctx, n_ctx, top->tok, top->n, count);
        if (total == 0) /* then no longer context is there either */
            return;
        for (int32_t v = 0; v < top->n; v++)
            g[v] += p->lambda[n_ctx - 1] * count[v] / total;
    }
}

struct candidate {
    struct superposed_pick pick;
    bool is_foreseen; /* its score is a finite one: n-grams of its draft lead to it, or to none of the draft's tokens */
    bool is_taken;
};

struct pool {                                                      /* one step's */
    struct candidate c[SUPERPOSED_MAX_DRAFT * SUPERPOSED_MAX_TOP]; /* [n] by draft, then by place in the list */
    int32_t n;
};

/* The tokens that draft i can go on with. */
static void add_candidates(const struct superposed_params *p, const struct superposed_top *top, const double *log_p,
                           const double *g, int32_t i, double score, struct pool *all)
{
    bool any = false;
    for (int32_t v = 0; v < top->n; v++)
        any |= log_p[v] > -INFINITY && g[v] > 0;
    for (int32_t v = 0; v < top->n; v++) {
        if (!(log_p[v] > -INFINITY))
            continue;
        double gain = (1 - p->alpha) * log_p[v];
        if (p->alpha > 0)
            gain += g[v] > 0 ? p->alpha * log(g[v]) : -p->penalty;
        all->c[all->n++] = (struct candidate){.pick = {.parent = i, .at = v, .tok = top->tok[v], .score = score + gain},
                                              .is_foreseen = p->alpha == 0 || g[v] > 0 || !any};
    }
}

/* ---- selection ---- */

static bool above(const struct candidate *x, const struct candidate *y)
{
    return x->is_foreseen != y->is_foreseen ? x->is_foreseen : x->pick.score > y->pick.score;
}

/* The best that is left, the first of equals; NULL: none is. */
static struct candidate *take_best(struct pool *all)
{
    struct candidate *best = NULL;
    for (int32_t i = 0; i < all->n; i++)
        if (!all->c[i].is_taken && (!best || above(&all->c[i], best)))
            best = &all->c[i];
    if (best)
        best->is_taken = true;
    return best;
}

static void select_drafts(struct pool *all, int32_t k, const bool *is_end, struct superposed_step *out)
{
    struct candidate *c;
    for (int32_t i = 0; (i < 2 * k || out->n_alive < k) && (c = take_best(all)); i++) {
        if (!is_end || !is_end[c->pick.at]) {
            if (out->n_alive < k)
                out->alive[out->n_alive++] = c->pick;
        } else if (i < 2 * k && c->is_foreseen) {
            out->finished[out->n_finished++] = c->pick;
        }
    }
}

static void weigh(struct superposed_step *out)
{
    double max = -INFINITY, sum = 0;
    for (int32_t i = 0; i < out->n_alive; i++)
        max = fmax(max, out->alive[i].score);
    for (int32_t i = 0; i < out->n_alive; i++)
        sum += out->weight[i] = exp(out->alive[i].score - max);
    for (int32_t i = 0; i < out->n_alive; i++)
        out->weight[i] /= sum;
}

void superposed_step(const struct superposed_params *p, const struct ngram *store, const struct superposed_top *top,
                     const struct superposed_draft *from, int32_t n_from, struct superposed_step *out)
{
    struct pool all;
    double log_p[SUPERPOSED_MAX_TOP], g[SUPERPOSED_MAX_TOP];
    BUG_ON(p->n_draft < 1 || p->n_draft > SUPERPOSED_MAX_DRAFT || n_from < 1 || n_from > SUPERPOSED_MAX_DRAFT);
    BUG_ON(top->n < 1 || top->n > SUPERPOSED_MAX_TOP || !(p->tau > 0));
    all.n = 0;
    *out = (struct superposed_step){0};
    shared_law(p, top, log_p);
    for (int32_t i = 0; i < n_from; i++) {
        foreseen(p, p->alpha > 0 ? store : NULL, top, &from[i], g);
        add_candidates(p, top, log_p, g, i, from[i].score, &all);
    }
    select_drafts(&all, p->n_draft, top->is_end, out);
    weigh(out);
}
