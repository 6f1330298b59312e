/* The verifiers that walk from the root down. Each is one rule that picks a node's next token: its law over drafts and
 * chance is exactly p, and it is coupled to the drafts so that it often is one of them. Where the token was drafted,
 * the walk goes on in that child, whose own draws nothing has looked at yet; else the step ends with it. */
#include "verify_impl.h"

/* Accepts one draft, or takes what q leaves of p: speculative sampling. */
static int32_t pick_single(struct residual *r, int32_t x, const struct chance *c)
{
    if (chance_coin(c, residual_accept(r, x)))
        return r->node->list[x];
    residual_reject(r, x, false);
    return residual_token(r, c);
}

/* All drafts but the last are deterministic: one speculative step with q less those, on which it is 0, so that they
 * keep all their p. Where q had no more tokens than drafts, the last is all that was left of it, and the same holds. */
static int32_t pick_greedy(struct residual *r, const struct chance *c)
{
    const struct verify_node *u = r->node;
    for (int32_t j = 0; j + 1 < u->n_drawn; j++)
        residual_exclude(r, u->drawn[j]);
    return pick_single(r, u->drawn[u->n_drawn - 1], c);
}

static int32_t pick_rrs(struct residual *r, bool without_replacement, const struct chance *c)
{
    const struct verify_node *u = r->node;
    for (int32_t j = 0; j < u->n_drawn; j++) {
        if (chance_coin(c, residual_accept(r, u->drawn[j])))
            return u->list[u->drawn[j]];
        residual_reject(r, u->drawn[j], without_replacement);
    }
    return residual_token(r, c);
}

/* ---- k-SEQ, section 4 ---- */

/* beta(rho): the probability that one draw is accepted. */
static double kseq_beta(const double *p, const double *q, int32_t n, double rho)
{
    double inv = 1 / rho, sum = 0;
    for (int32_t i = 0; i < n; i++) {
        double share = p[i] * inv;
        sum += share < q[i] ? share : q[i];
    }
    return sum < 1 ? sum : 1;
}

/* gamma: (1 - (1 - beta)^k) / beta, as the sum of (1 - beta)^j, j < k. */
static double kseq_gamma(double beta, int32_t k)
{
    double sum = 1;
    for (int32_t j = 1; j < k; j++)
        sum = 1 + (1 - beta) * sum;
    return sum;
}

/* Section 4's equation 1 - (1 - beta)^k = rho beta is gamma = rho; gamma - rho falls from >= 0 at 1 to <= 0 at k. */
double kseq_rho(const double *p, const double *q, int32_t n, int32_t k)
{
    double lo = 1, hi = k;
    while (hi - lo > 4e-16 * hi) {
        double mid = 0.5 * (lo + hi);
        if (mid <= lo || mid >= hi)
            break;
        if (kseq_gamma(kseq_beta(p, q, n, mid), k) > mid)
            lo = mid;
        else
            hi = mid;
    }
    return hi; /* the side on which any rho is valid */
}

static int32_t pick_kseq(struct residual *r, const struct chance *c)
{
    const struct verify_node *u = r->node;
    int32_t k = u->n_drawn, n = u->n_list;
    double rho = kseq_rho(r->p, r->q, n, k), inv = 1 / rho;
    for (int32_t j = 0; j < k; j++) {
        int32_t x = u->drawn[j];
        double share = r->p[x] * inv;
        if (chance_coin(c, share < r->q[x] ? share / r->q[x] : r->q[x] > 0))
            return u->list[x];
    }
    double gamma = kseq_gamma(kseq_beta(r->p, r->q, n, rho), k);
    for (int32_t i = 0; i < n; i++) {
        double share = r->p[i] * inv, rest = r->p[i] - gamma * (share < r->q[i] ? share : r->q[i]);
        r->p[i] = rest > 0 ? rest : 0;
    }
    r->touched = true; /* p off the list is whole; the weights need not sum to 1 */
    return residual_token(r, c);
}

/* ---- The walk ---- */

static int32_t pick(enum verify_kind kind, const struct verify_tree *t, const struct verify_node *u,
                    const struct chance *c)
{
    struct residual r;
    if (u->draw >= 0 && (kind == VERIFY_NSS || u->n_drawn == 0))
        return u->draw;
    residual_begin(&r, u, 1);
    if (u->n_drawn == 0)
        return residual_token(&r, c);
    switch (kind) {
    case VERIFY_NAIVE:
        return pick_single(&r, u->drawn[0], c);
    case VERIFY_RRS:
        return pick_rrs(&r, t->law == DRAFT_WOR, c);
    case VERIFY_KSEQ:
        return pick_kseq(&r, c);
    case VERIFY_GREEDY:
        return pick_greedy(&r, c);
    default: /* NSS without a draw */
        return residual_token(&r, c);
    }
}

void verify_topdown(enum verify_kind kind, const struct verify_tree *t, const struct chance *c,
                    struct verify_result *out)
{
    int32_t u = 0, token, child;
    for (;;) {
        token = pick(kind, t, &t->node[u], c);
        child = verify_child(t, u, token);
        if (child < 0)
            break;
        u = child;
    }
    verify_end(t, u, token, out);
}
