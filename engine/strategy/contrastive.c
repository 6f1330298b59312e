#include "contrastive.h"

#include <math.h>

#include "drafting.h"
#include "strategy.h"

int32_t contrastive_choose(const struct candidate *cand, const float *similarity, int32_t n, float alpha)
{
    int32_t best = 0;
    double best_score = 0;
    for (int32_t i = 0; i < n; i++) { /* likeliest first */
        double score = (1 - (double)alpha) * cand[i].p - (double)alpha * similarity[i];
        if (i == 0 || score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return best;
}

/* Every token is computed and the candidates for the next one are known. */
static bool compares(const struct seq *s)
{
    return s->contrastive->n > 0 && s->kv.n_computed == seq_n_tok(s);
}

static int32_t want(const struct seq *s)
{
    return compares(s) ? s->contrastive->n : seq_n_tok(s) - s->kv.n_computed;
}

/* The likeliest tokens behind a row: those of the law, and the raw ones that logprobs are read from. */
static int plan_candidates(struct seq *s, struct step_plan *p, int32_t row)
{
    const struct gen_params *q = &s->req->p;
    int32_t k = q->decoding.contrastive.k, n_raw = q->n_logprobs < 0 ? 0 : q->n_logprobs > k ? q->n_logprobs : k;
    struct readout law = {.kind = READ_TOPK, .row = row, .n = k, .bank = -1};
    struct readout raw = {.kind = READ_TOPK, .raw = 1, .row = row, .n = n_raw, .bank = -1};
    return plan_readout(p, &law, NULL) < 0 || (n_raw && plan_readout(p, &raw, NULL) < 0) ? -ERR_NOMEM : 0;
}

static int plan(struct engine *eng, struct seq *s, struct step_plan *p)
{
    int32_t row0 = p->n.n_row, n = s->contrastive->n;
    if (!compares(s)) {
        bool last = seq_draws(s) && n == 0; /* after preemption the candidates are still known */
        int rc = seq_plan_span(eng, s, p, &(struct span_shape){.n_row = s->n_want, .draws = last});
        return rc || !last ? rc : plan_candidates(s, p, row0 + s->n_want - 1);
    }
    int rc = seq_plan_span(eng, s, p, &(struct span_shape){.draws = true, .n_out_after = 1});
    for (int32_t i = 0; !rc && i < n; i++)
        rc = plan_row(p, s->contrastive->cand[i].tok, seq_n_tok(s), PARENT_CTX, UINT64_C(1) << i) < 0 ? -ERR_NOMEM : 0;
    for (int32_t i = 0; !rc && i < n; i++) {
        struct readout likeness = {.kind = READ_CONTRAST, .row = row0 + i, .bank = -1};
        rc = plan_readout(p, &likeness, NULL) < 0 ? -ERR_NOMEM : plan_candidates(s, p, row0 + i);
    }
    return rc;
}

static void read_candidates(struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t at)
{
    struct contrastive *c = s->contrastive;
    const struct readout *k = &p->readout[at];
    c->n_top = 0;
    if (s->req->p.n_logprobs >= 0)
        read_top(p, r, at + 1, c->top, &c->n_top);
    for (c->n = 0; c->n < k->n && r->i[k->i0 + c->n] >= 0; c->n++) {
        struct candidate *v = &c->cand[c->n];
        *v = (struct candidate){.tok = r->i[k->i0 + c->n], .p = expf(r->f[k->f0 + c->n])};
        v->logprob = r->f[k->f0 + c->n];
        for (int32_t i = 0; i < c->n_top; i++)
            if (c->top[i].tok == v->tok) {
                v->logprob = c->top[i].logprob;
                v->rank = i;
            }
    }
}

static void compare(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    struct contrastive *c = s->contrastive;
    int32_t per_row = s->req->p.n_logprobs >= 0 ? 3 : 2, n_top = s->req->p.n_logprobs > 0 ? s->req->p.n_logprobs : 0;
    float similarity[CONTRASTIVE_MAX_K];
    for (int32_t i = 0; i < c->n; i++)
        similarity[i] = r->f[p->readout[s->readout0 + i * per_row].f0];
    int32_t best = contrastive_choose(c->cand, similarity, c->n, s->req->p.decoding.contrastive.alpha);
    struct candidate v = c->cand[best];
    struct sampled t = {.tok = v.tok, .logprob = v.logprob, .rank = v.rank, .top = c->top};
    t.n_top = c->n_top < n_top ? c->n_top : n_top;
    drafting_count_step(eng, s);
    if (!seq_accept(eng, s, &t))
        return;
    read_candidates(s, p, r, s->readout0 + best * per_row + 1);
    seq_commit_row(&eng->target, s, &s->kv, s->kv.n_computed + best); /* no room for the move: it is computed again */
}

static void settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    if (compares(s)) {
        compare(eng, s, p, r);
        return;
    }
    int32_t at = seq_take_prompt_scores(s, p, r);
    bool last = seq_draws(s) && s->contrastive->n == 0;
    seq_commit(&eng->target, s, &s->kv, s->n_want);
    if (!last)
        return;
    read_candidates(s, p, r, at);
    if (s->contrastive->n == 0)
        seq_accept(eng, s, &(struct sampled){.tok = -1});
}

const struct strategy_ops strategy_contrastive = {
    .name = "contrastive", .want = want, .whole = compares, .plan = plan, .settle = settle};
