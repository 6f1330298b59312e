#include "cautious.h"

#include <math.h>
#include <string.h>

#include "drafting.h"
#include "mem.h"
#include "rng.h"
#include "strategy.h"
#include "tokenizer.h"

/* ---- The method ---- */

int32_t cautious_trials(const struct cautious_params *c, double entropy, int32_t n_max)
{
    double x = (entropy - c->h_min) / (c->h_max - c->h_min), n;
    if (c->by_paper) {
        n = floor(x * n_max);
        return n < 1 ? 1 : n > n_max ? n_max : (int32_t)n;
    }
    x = x < 0 ? 0 : x > 1 ? 1 : x;
    return (int32_t)floor(1 + (n_max - 1) * x);
}

int32_t cautious_choose(const struct trial *trial, int32_t n)
{
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (trial[i].sum_lnp / trial[i].n > trial[best].sum_lnp / trial[best].n)
            best = i;
    return best;
}

/* Tokens differ in how they are cut, so what counts is how the token's text ends, blank space after it aside. */
static bool ends_segment(const struct seq *s, int32_t tok)
{
    static const char *const usual[] = {".", ",", "\n", "?", "!", ":", ";", ")", "]", "}"};
    const struct cautious_params *c = &s->req->p.decoding.cautious;
    const char *const *end = c->n_end ? c->end : usual;
    int32_t n_end = c->n_end ? c->n_end : (int32_t)(sizeof usual / sizeof *usual);
    struct slice piece = tok_piece(s->detok.tok, tok);
    for (size_t len = piece.len; len > 0; len--) {
        for (int32_t i = 0; i < n_end; i++) {
            size_t n = strlen(end[i]);
            if (n <= len && !memcmp(piece.p + len - n, end[i], n))
                return true;
        }
        char last = piece.p[len - 1];
        if (last != ' ' && last != '\n' && last != '\t' && last != '\r')
            return false;
    }
    return false;
}

/* ---- Trials ---- */

static struct cautious *cautious_of(const struct seq *s)
{
    return container_of(s->gang, struct cautious, gang);
}

static struct trial *trial_of(const struct seq *member)
{
    return &cautious_of(member)->trial[member - member->gang->member];
}

static void trial_say(struct engine *eng, struct seq *m, const struct sampled *t, float lnp)
{
    const struct gen_params *q = &m->req->p;
    struct trial *trial = trial_of(m);
    if (t->tok < 0) { /* nothing can be sampled: the trial ends without a token, the trunk will meet the same */
        trial->over = true;
        return;
    }
    trial->said[trial->n] = (struct said){.tok = t->tok, .rank = t->rank, .n_top = t->n_top, .logprob = t->logprob};
    if (t->n_top)
        memcpy(trial->top + (size_t)trial->n * (size_t)q->n_logprobs, t->top, sizeof *t->top * (size_t)t->n_top);
    trial->n++;
    trial->sum_lnp += lnp;
    m->out[m->n_out++] = t->tok;
    seq_count_token(m, t->tok);
    trial->over = ends_segment(m, t->tok) || seq_ends_at(eng, m, t->tok) || seq_try_text(eng, m, t->tok) ||
                  trial->n == q->decoding.cautious.max_segment || m->n_out == q->max_tokens;
}

static int32_t trial_want(const struct seq *m)
{
    return trial_of(m)->over ? 0 : seq_n_tok(m) - m->kv.n_computed;
}

static int trial_plan(struct engine *eng, struct seq *m, struct step_plan *p)
{
    int32_t row0 = p->n.n_row;
    int rc = seq_plan_span(eng, m, p, &(struct span_shape){.n_row = m->n_want, .draws = seq_draws(m)});
    return rc || !seq_draws(m) ? rc : seq_plan_draw(m, p, row0 + m->n_want - 1);
}

static void trial_settle(struct engine *eng, struct seq *m, const struct step_plan *p, const struct step_result *r)
{
    struct top_logprob top[PLAN_MAX_TOPK];
    bool draws = seq_draws(m);
    seq_commit(&eng->target, m, &m->kv, m->n_want);
    if (!draws)
        return;
    struct sampled t = read_draw(m, p, r, m->readout0, top);
    trial_say(eng, m, &t, r->f[p->readout[m->readout0].f0]);
}

const struct strategy_ops strategy_trial = {
    .name = "trial", .want = trial_want, .plan = trial_plan, .settle = trial_settle};

/* The first trial goes on from the trunk's own draw, under its noise: one trial is plain sampling. */
static void start_trials(struct engine *eng, struct seq *s, int32_t n, const struct sampled *first, float lnp)
{
    struct cautious *c = cautious_of(s);
    c->n_trial = n;
    s->req->decoding.n_segment++;
    for (int32_t i = 0; i < n; i++) {
        struct seq *m = &c->gang.member[i];
        struct trial *t = &c->trial[i];
        *t = (struct trial){.said = t->said, .top = t->top};
        gang_copy_tokens(m, s);
        m->noise_key = i == 0 ? s->noise_key : rng_mix(s->noise_key + (uint64_t)i);
        m->live = true;
        if (i == 0)
            trial_say(eng, m, first, lnp);
        m->live = !t->over;
    }
}

/* ---- The trunk ---- */

static int32_t cautious_want(const struct seq *s)
{
    const struct cautious *c = cautious_of(s);
    int32_t until = c->n_trial ? gang_fork_point(s) : seq_n_tok(s), n = until - s->kv.n_computed;
    return c->kept >= 0 || n < 0 ? 0 : n;
}

static int cautious_plan(struct engine *eng, struct seq *s, struct step_plan *p)
{
    int32_t last = p->n.n_row + s->n_want - 1;
    int rc = seq_plan_span(eng, s, p, &(struct span_shape){.n_row = s->n_want, .draws = seq_draws(s)});
    if (rc || !seq_draws(s))
        return rc;
    struct readout entropy = {.kind = READ_TOPK, .row = last, .n = 1, .bank = -1};
    return plan_readout(p, &entropy, NULL) < 0 ? -ERR_NOMEM : seq_plan_draw(s, p, last);
}

static void cautious_settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    struct top_logprob top[PLAN_MAX_TOPK];
    int32_t at = seq_take_prompt_scores(s, p, r);
    bool draws = seq_draws(s);
    seq_commit(&eng->target, s, &s->kv, s->n_want);
    if (!draws)
        return;
    const struct readout *entropy = &p->readout[at], *draw = &p->readout[at + 1];
    struct sampled t = read_draw(s, p, r, at + 1, top);
    int32_t n = cautious_trials(&s->req->p.decoding.cautious, r->f[entropy->f0 + entropy->n + 1], s->gang->n_member);
    drafting_count_step(eng, s);
    if (n > 1 && t.tok >= 0)
        start_trials(eng, s, n, &t, r->f[draw->f0]);
    else
        seq_accept(eng, s, &t);
}

const struct strategy_ops strategy_cautious = {
    .name = "cautious", .want = cautious_want, .plan = cautious_plan, .settle = cautious_settle};

static bool all_over(const struct cautious *c)
{
    for (int32_t i = 0; i < c->n_trial; i++)
        if (!c->trial[i].over)
            return false;
    return c->n_trial > 0;
}

/* The best trial's tokens become the trunk's, and its blocks, unless preemption took them. */
static void keep_best(struct engine *eng, struct cautious *c)
{
    struct seq *s = c->gang.leader, *best;
    struct request_decoding *d = &s->req->decoding;
    c->kept = cautious_choose(c->trial, c->n_trial);
    c->n_said = 0;
    best = &c->gang.member[c->kept];
    for (int32_t i = 0; i < c->n_trial; i++)
        d->n_drafted += c->trial[i].n;
    d->n_accepted += c->trial[c->kept].n;
    if (best->kv.n_block && s->state == SEQ_RUNNING) {
        struct seq_kv own = s->kv;
        s->kv = best->kv;
        best->kv = own;
    }
    c->n_trial = 0;
    gang_disband(eng, &c->gang);
}

bool cautious_token(const struct gang *g, int32_t text, int32_t i, struct sampled *out)
{
    const struct trial *t = &container_of(g, struct cautious, gang)->trial[text];
    int32_t n_top = g->leader->req->p.n_logprobs > 0 ? g->leader->req->p.n_logprobs : 0;
    if (i == t->n)
        return false;
    const struct said *w = &t->said[i];
    *out = (struct sampled){.tok = w->tok,
                            .logprob = w->logprob,
                            .rank = w->rank,
                            .n_top = w->n_top,
                            .top = t->top + (size_t)i * (size_t)n_top};
    return true;
}

static enum gang_news say_kept(struct engine *eng, struct cautious *c)
{
    struct seq *s = c->gang.leader;
    bool only = s->req->n_active == 1;
    switch (gang_say(eng, &c->gang, c->kept, s, &c->n_said)) {
    case SAID_SOME:
        return GANG_IDLE;
    case SAID_END:
        return only ? GANG_GONE : GANG_BUSY;
    default:
        c->kept = -1;
        return GANG_BUSY;
    }
}

enum gang_news cautious_gather(struct engine *eng, struct gang *g)
{
    struct cautious *c = container_of(g, struct cautious, gang);
    if (g->leader->state == SEQ_DONE)
        return GANG_IDLE;
    if (all_over(c))
        keep_best(eng, c);
    return c->kept >= 0 ? say_kept(eng, c) : GANG_IDLE;
}
