/* A chain of the tokens not yet computed: prefill and plain decoding. When it reaches the last one, a draw; drafted
 * tokens may stand behind that, a chain or a tree, with a draw each. A draw depends on key and position alone, so where
 * it is a drafted token, that token's row was computed on the right text: the tokens are those of plain decoding. */
#include "strategy.h"
#include "verified.h"

static int32_t chain_want(const struct seq *s)
{
    return seq_n_tok(s) - s->kv.n_computed;
}

/* Rows whose next token is a prompt token that has to be scored: prompt positions 1.., each once. */
static bool scores_prompt(const struct seq *s, int32_t position)
{
    const struct request *r = s->req;
    return r->prompt_lp && s->choice == 0 && position + 1 < r->n_prompt && position + 1 > r->n_prompt_lp;
}

static int add_prompt_scores(struct seq *s, struct step_plan *p, int32_t row0)
{
    for (int32_t i = 0; i < s->n_want; i++) {
        int32_t pos = s->kv.n_computed + i, n_top = s->req->p.n_prompt_logprobs;
        if (!scores_prompt(s, pos))
            continue;
        struct readout lp = {.kind = READ_LOGPROB, .raw = 1, .row = row0 + i, .n = 1, .bank = -1};
        struct readout top = {.kind = READ_TOPK, .raw = 1, .row = row0 + i, .n = n_top, .bank = -1};
        if (plan_readout(p, &lp, &s->req->prompt[pos + 1]) < 0 || (n_top > 0 && plan_readout(p, &top, NULL) < 0))
            return -ERR_NOMEM;
    }
    return 0;
}

static int add_draw(struct seq *s, struct step_plan *p, int32_t row)
{
    int32_t n_top = s->req->p.n_logprobs;
    struct readout draw = {.kind = READ_SAMPLE, .row = row, .n = n_top >= 0, .bank = -1};
    struct readout top = {.kind = READ_TOPK, .raw = 1, .row = row, .n = n_top, .bank = -1};
    if (plan_readout(p, &draw, NULL) < 0 || (n_top > 0 && plan_readout(p, &top, NULL) < 0))
        return -ERR_NOMEM;
    return 0;
}

/* Drafted rows: in a chain they go on where the decided tokens end; in a tree each names its parent and whom it sees.
 */
static int add_drafted(struct seq *s, struct step_plan *p)
{
    const struct draft_rows *d = &s->rows;
    int32_t last = s->n_want - 1, pos0 = seq_n_tok(s);
    for (int32_t i = 0; i < d->n; i++)
        if (plan_row(p, d->tok[i], pos0 + d->depth[i], (int16_t)(last + 1 + d->parent[i]),
                     d->is_chain ? 0 : d->sees[i]) < 0)
            return -ERR_NOMEM;
    return 0;
}

/* By a verifier of its request's choice; a step without drafts needs none. */
static bool is_verified(const struct seq *s)
{
    return s->verified && s->rows.n > 0;
}

static int chain_plan(struct engine *eng, struct seq *s, struct step_plan *p)
{
    int law = seq_draws(s) ? seq_plan_law(s, p) : -1;
    if (seq_draws(s) && law < 0)
        return law;
    struct span span = {.seq = (int32_t)s->req->order,
                        .ctx_len = s->kv.n_computed,
                        .n_chain = s->n_want + (s->rows.is_chain ? s->rows.n : 0),
                        .n_counted = s->n_want,
                        .group = s->req->p.n > 1 ? (int32_t)s->req->order : -1,
                        .law = law,
                        .layer1 = (int16_t)eng->target.env.n_layer};
    s->span = plan_span(p, &span);
    s->readout0 = p->n.n_readout;
    if (s->span < 0)
        return s->span;
    int32_t row0 = p->n.n_row;
    for (int32_t i = 0; i < s->n_want; i++)
        if (plan_row(p, seq_tok(s, s->kv.n_computed + i), s->kv.n_computed + i, (int16_t)(i - 1), 0) < 0)
            return -ERR_NOMEM;
    if (add_drafted(s, p) || plan_blocks(p, s->kv.block, s->kv.n_block) < 0)
        return -ERR_NOMEM;
    int rc = add_prompt_scores(s, p, row0);
    if (!rc && is_verified(s))
        return verified_plan(s, p, row0 + s->n_want - 1);
    for (int32_t i = s->n_want - 1; !rc && seq_draws(s) && i < s->n_want + s->rows.n; i++)
        rc = add_draw(s, p, row0 + i);
    return rc;
}

/* Returns the readout after the prompt's. */
static int32_t take_prompt_scores(struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    struct request *req = s->req;
    int32_t at = s->readout0, n_top = req->p.n_prompt_logprobs;
    for (int32_t i = 0; i < s->n_want; i++) {
        int32_t pos = s->kv.n_computed + i;
        if (!scores_prompt(s, pos))
            continue;
        struct prompt_logprob *lp = &req->prompt_lp[pos + 1];
        *lp = (struct prompt_logprob){.logprob = r->f[p->readout[at].f0], .rank = r->i[p->readout[at].i0]};
        at++;
        if (n_top > 0)
            read_top(p, r, at++, req->prompt_top + (size_t)(pos + 1) * (size_t)n_top, &lp->n_top);
        req->n_prompt_lp = pos + 1;
    }
    return at;
}

/* The draw behind drafted row `row`, -1: behind the last decided token. False: the sequence is finished by it. */
static bool take_draw(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                      int32_t at)
{
    struct top_logprob top[PLAN_MAX_TOPK];
    const struct readout *draw = &p->readout[at];
    struct sampled t = {.tok = r->i[draw->i0], .logprob = r->f[draw->f0 + 1], .rank = r->i[draw->i0 + 1], .top = top};
    if (s->req->p.n_logprobs > 0)
        read_top(p, r, at + 1, top, &t.n_top);
    return seq_accept(eng, s, &t);
}

/* From the last decided token down the tree: as long as a draw is one of the drafted tokens, that token's own row was
 * computed on the right text, and its draw holds as well. What the client has no room to hear is left: the next step
 * draws it again. */
static void take_draws(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                       int32_t at0)
{
    int32_t per_draw = s->req->p.n_logprobs > 0 ? 2 : 1, slot0 = s->kv.n_computed, n_true = 0;
    drafting_count_step(eng, s);
    for (int32_t row = -1;;) {
        int32_t at = at0 + (row + 1) * per_draw, next = draft_next_row(&s->rows, row, r->i[p->readout[at].i0]);
        if (next >= 0)
            drafting_count_true(eng, s, n_true++); /* first, for a sequence that ends by the draw is gone with it */
        if (!take_draw(eng, s, p, r, at) || next < 0 || !request_has_room(s->req, 2 * s->req->p.n) ||
            !seq_commit_row(&eng->target, s, &s->kv, slot0 + next))
            return;
        eng->metrics.now.n_moved += slot0 + next != s->kv.n_computed - 1;
        row = next;
    }
}

static void chain_settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r)
{
    int32_t at = take_prompt_scores(s, p, r);
    bool draws = seq_draws(s),
         scored_only = s->req->p.max_tokens == 0 && s->kv.n_computed + s->n_want == s->req->n_prompt;
    seq_commit(&eng->target, s, &s->kv, s->n_want);
    if (draws && is_verified(s))
        verified_settle(eng, s, p, r, at);
    else if (draws)
        take_draws(eng, s, p, r, at);
    else if (scored_only)
        seq_finish(eng, s, FINISH_LENGTH, -1, NULL);
}

const struct strategy_ops strategy_chain = {
    .name = "chain", .want = chain_want, .plan = chain_plan, .settle = chain_settle};
