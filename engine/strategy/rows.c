/* The rows and readouts that ways of decoding have in common: the decided tokens not yet computed, the prompt's scores,
 * a draw. */
#include "strategy.h"

/* ---- Scores of the prompt ---- */

/* Rows whose next token is a prompt token that has to be scored: prompt positions 1.., each once. */
static bool scores_prompt(const struct seq *s, int32_t position)
{
    const struct request *r = s->req;
    return r->prompt_lp && s->choice == 0 && position + 1 < r->n_prompt && position + 1 > r->n_prompt_lp;
}

static int add_prompt_scores(struct seq *s, struct step_plan *p, int32_t row0, int32_t n_row)
{
    for (int32_t i = 0; i < n_row; i++) {
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

int32_t seq_take_prompt_scores(struct seq *s, const struct step_plan *p, const struct step_result *r)
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

/* ---- Rows ---- */

int seq_plan_span(struct engine *eng, struct seq *s, struct step_plan *p, const struct span_shape *shape)
{
    int32_t row0 = p->n.n_row;
    int law = shape->draws ? seq_plan_law(s, p, shape->n_out_after) : -1;
    if (shape->draws && law < 0)
        return law;
    struct span span = {.seq = (int32_t)s->req->order,
                        .ctx_len = s->kv.n_computed,
                        .n_chain = shape->n_row + shape->n_chain_after,
                        .n_counted = shape->n_row,
                        .group = s->req->n_seq > 1 ? (int32_t)s->req->order : -1,
                        .law = law,
                        .layer1 = (int16_t)eng->target.env.n_layer};
    s->span = plan_span(p, &span);
    s->readout0 = p->n.n_readout;
    if (s->span < 0)
        return s->span;
    for (int32_t i = 0; i < shape->n_row; i++)
        if (plan_row(p, seq_tok(s, s->kv.n_computed + i), s->kv.n_computed + i, (int16_t)(i - 1), 0) < 0)
            return -ERR_NOMEM;
    if (plan_blocks(p, s->kv.block, s->kv.n_block) < 0)
        return -ERR_NOMEM;
    return add_prompt_scores(s, p, row0, shape->n_row);
}

/* ---- A draw ---- */

int seq_plan_draw(struct seq *s, struct step_plan *p, int32_t row)
{
    int32_t n_top = s->req->p.n_logprobs;
    struct readout draw = {.kind = READ_SAMPLE, .row = row, .n = n_top >= 0 || s->gang, .bank = -1};
    struct readout top = {.kind = READ_TOPK, .raw = 1, .row = row, .n = n_top, .bank = -1};
    if (plan_readout(p, &draw, NULL) < 0 || (n_top > 0 && plan_readout(p, &top, NULL) < 0))
        return -ERR_NOMEM;
    return 0;
}

void read_top(const struct step_plan *p, const struct step_result *r, int32_t readout, struct top_logprob *top,
              int32_t *n_top)
{
    const struct readout *k = &p->readout[readout];
    *n_top = 0;
    for (int32_t j = 0; j < k->n && r->i[k->i0 + j] >= 0; j++)
        top[(*n_top)++] = (struct top_logprob){.tok = r->i[k->i0 + j], .logprob = r->f[k->f0 + j]};
}

struct sampled read_draw(const struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t readout,
                         struct top_logprob *top)
{
    const struct readout *draw = &p->readout[readout];
    struct sampled t = {.tok = r->i[draw->i0], .logprob = r->f[draw->f0 + 1], .rank = r->i[draw->i0 + 1], .top = top};
    if (s->req->p.n_logprobs > 0)
        read_top(p, r, readout + 1, top, &t.n_top);
    return t;
}
