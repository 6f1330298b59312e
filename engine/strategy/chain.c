/* A chain of the tokens not yet computed: prefill and plain decoding. When it reaches the last one, a draw; drafted
 * tokens may stand behind that, a chain or a tree, with a draw each. A draw depends on key and position alone, so where
 * it is a drafted token, that token's row was computed on the right text: the tokens are those of plain decoding. */
#include "strategy.h"
#include "verified.h"

static int32_t chain_want(const struct seq *s)
{
    return seq_n_tok(s) - s->kv.n_computed;
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
    int32_t row0 = p->n.n_row;
    int rc = seq_plan_span(eng, s, p,
                           &(struct span_shape){.n_row = s->n_want,
                                                .n_chain_after = s->rows.is_chain ? s->rows.n : 0,
                                                .draws = seq_draws(s)});
    if (!rc)
        rc = add_drafted(s, p);
    if (!rc && is_verified(s))
        return verified_plan(s, p, row0 + s->n_want - 1);
    for (int32_t i = s->n_want - 1; !rc && seq_draws(s) && i < s->n_want + s->rows.n; i++)
        rc = seq_plan_draw(s, p, row0 + i);
    return rc;
}

/* False: the sequence is finished by the draw. */
static bool take_draw(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                      int32_t at)
{
    struct top_logprob top[PLAN_MAX_TOPK];
    struct sampled t = read_draw(s, p, r, at, top);
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
    int32_t at = seq_take_prompt_scores(s, p, r);
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
