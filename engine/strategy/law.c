/* From a request's sampling parameters to the plan's law. */
#include "strategy.h"

static struct law law_of(const struct seq *s)
{
    const struct gen_params *q = &s->req->p;
    bool weighs = q->decoding.strategy == DECODE_CONTRASTIVE || q->decoding.strategy == DECODE_BEAM;
    if (q->decoding.strategy == DECODE_SUPERPOSED) /* tau stands in for all of it */
        return (struct law){.temperature = 1, .top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1};
    return (struct law){.temperature = weighs && q->temperature == 0 ? 1 : q->temperature,
                        .top_p = q->top_p,
                        .min_p = q->min_p,
                        .typical_p = q->typical_p,
                        .top_h = q->top_h,
                        .top_k = q->top_k,
                        .top_h_n = q->top_h_n,
                        .top_h_mode = (uint8_t)q->top_h_mode,
                        .repetition = q->repetition_penalty,
                        .frequency = q->frequency_penalty,
                        .presence = q->presence_penalty,
                        .noise_key = s->noise_key};
}

int seq_plan_law(struct seq *s, struct step_plan *p, int32_t n_out_after)
{
    const struct gen_params *q = &s->req->p;
    struct law l = law_of(s);
    int at = plan_law(p, &l, s->law_tok, s->n_law_tok, s->req->user_ban, s->req->n_user_ban);
    if (at < 0 || s->n_out + n_out_after >= q->min_tokens)
        return at;
    /* Too early to end: the end tokens join the bans, which stand last in the plan's list. */
    if (s->req->n_ban > p->cap.n_ban - p->n.n_ban)
        return -ERR_NOMEM;
    for (int32_t i = 0; i < s->req->n_ban; i++)
        p->ban[p->n.n_ban++] = s->req->ban[i];
    p->law[at].n_ban += s->req->n_ban;
    return at;
}
