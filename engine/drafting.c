/* Drafts in a step: every sequence that reaches its end says what it would have verified, and the rows the step has
 * left go to the drafts that are worth most. */
#include "draft/allot.h"
#include "engine_impl.h"

static struct history_text text_of(const struct seq *s)
{
    const struct request *r = s->req;
    return (struct history_text){.part = {r->prediction, r->prompt, s->out},
                                 .n_part = {r->n_prediction, r->n_prompt, s->n_out},
                                 .n = r->n_prediction + r->n_prompt + s->n_out};
}

/* Drafted rows that the request leaves room for: the last token of max_tokens needs none, and a span has one law, so a
 * draft must not reach over the place where min_tokens ends. */
static int32_t most_rows(const struct seq *s)
{
    const struct gen_params *p = &s->req->p;
    int32_t max = p->max_tokens - s->n_out - 1, until_ends_count = p->min_tokens - s->n_out - 1;
    if (until_ends_count >= 0 && until_ends_count < max)
        max = until_ends_count;
    if (p->decoding.max_draft && p->decoding.max_draft < max)
        max = p->decoding.max_draft;
    return max < s->draft.n ? max : s->draft.n;
}

/* A request that names its way of drafting gets it, the paper's ten tokens unless it says how many; `auto` weighs. */
static int32_t sure_rows(const struct seq *s, int32_t max)
{
    const struct decoding_params *d = &s->req->p.decoding;
    int32_t wanted = d->max_draft ? d->max_draft : COPY_DEFAULT_DRAFT;
    if (d->strategy != DECODE_SPECULATIVE || s->draft.agreed < s->copy.history.min_match)
        return 0;
    return wanted < max ? wanted : max;
}

static bool bid_for(struct engine *eng, struct seq *s, struct bid *b)
{
    if (!s->copy.on || s->n_want == 0 || s->n_computed + s->n_want != seq_n_tok(s))
        return false;
    struct history_text t = text_of(s);
    copy_observe(&s->copy, &eng->accept, &t, &s->draft);
    copy_propose(&s->copy, &eng->accept, &t, &s->draft);
    int32_t max = most_rows(s);
    *b = (struct bid){.draft = &s->draft, .max = max, .must = sure_rows(s, max)};
    return max > 0;
}

static double tokens_for_certain(const struct engine *eng)
{
    double n = 0;
    for (const struct seq *s = eng->running.head; s; s = s->next)
        n += s->n_want > 0 && s->n_computed + s->n_want == seq_n_tok(s);
    return n;
}

void drafting_pick(struct engine *eng, int32_t n_row, int32_t *budget)
{
    struct bid bid[ALLOT_MAX_BID];
    struct seq *bidder[ALLOT_MAX_BID];
    int32_t n = 0;
    for (struct seq *s = eng->running.head; s; s = s->next) {
        s->n_draft = 0;
        if (n < ALLOT_MAX_BID && bid_for(eng, s, &bid[n]))
            bidder[n++] = s;
    }
    if (n == 0 || *budget <= 0)
        return;
    draft_allot(bid, n, *budget, n_row, tokens_for_certain(eng), &eng->cost);
    for (int32_t i = 0; i < n; i++) {
        struct seq *s = bidder[i];
        if (!bid[i].n || !seq_reserve(eng, s, s->n_want + bid[i].n)) /* a draft never takes another's blocks */
            continue;
        s->n_draft = bid[i].n;
        *budget -= bid[i].n;
        eng->metrics.now.n_drafts++;
        eng->metrics.now.n_draft_tokens += (uint64_t)bid[i].n;
    }
}

/* ---- What came of it ---- */

void drafting_count_step(struct seq *s)
{
    struct request_decoding *d = &s->req->decoding;
    d->n_step++;
    d->n_drafted += s->n_draft;
    for (int32_t i = 0; i < s->n_draft; i++)
        d->drafted_at[i]++;
    if (s->n_draft && s->draft.predicted)
        atomic_fetch_add_explicit(&s->req->n_predicted, s->n_draft, memory_order_relaxed);
}

void drafting_count_true(struct engine *eng, struct seq *s, int32_t i)
{
    struct request_decoding *d = &s->req->decoding;
    d->n_accepted++;
    d->accepted_at[i]++;
    if (s->draft.predicted)
        atomic_fetch_add_explicit(&s->req->n_predicted_true, 1, memory_order_relaxed);
    eng->metrics.now.n_accepted_tokens++;
    eng->metrics.now.n_accepted_at[i]++;
}

/* ---- What steps cost ---- */

enum { CALIBRATION_NS = 200 * 1000 * 1000 };

/* Times a step of n rows of one sequence, each with a draw, as verifying needs it. */
static int time_step(struct lane *lane, int32_t n, double *seconds, struct err *e)
{
    struct step_plan *p = &lane->plan;
    int32_t n_block = (n + lane->env.block_len - 1) / lane->env.block_len, block[ALLOT_MAX_ROW];
    struct law law = {.top_p = 1, .typical_p = 1, .repetition = 1, .top_h_n = 100};
    plan_reset(p);
    struct span span = {.n_chain = n, .n_counted = n, .group = -1, .layer1 = (int16_t)lane->env.n_layer};
    span.law = plan_law(p, &law, NULL, 0, NULL, 0);
    plan_span(p, &span);
    for (int32_t i = 0; i < n; i++) {
        struct readout draw = {.kind = READ_SAMPLE, .row = i, .bank = -1};
        plan_row(p, i % lane->env.n_vocab, i, (int16_t)(i - 1), 0);
        plan_readout(p, &draw, NULL);
    }
    for (int32_t i = 0; i < n_block; i++)
        block[i] = i;
    plan_blocks(p, block, n_block);
    int64_t from = clock_ns();
    int rc = lane->ops->submit(lane->model, p, e);
    if (!rc)
        rc = lane->ops->wait(lane->model, &lane->result, e);
    *seconds = (double)(clock_ns() - from) * 1e-9;
    return rc;
}

int drafting_calibrate(struct engine *eng, struct err *e)
{
    struct lane *lane = &eng->target;
    int32_t most = eng->opt.max_batch_tokens < ALLOT_MAX_ROW ? eng->opt.max_batch_tokens : ALLOT_MAX_ROW,
            fits = lane->env.n_block * lane->env.block_len;
    int64_t from = clock_ns();
    double warm_up;
    cost_init(&eng->cost);
    int rc = time_step(lane, 1, &warm_up, e);
    for (int32_t n = 1; !rc && n <= most && n <= fits; n *= 2) {
        double a, b;
        rc = time_step(lane, n, &a, e);
        if (!rc)
            rc = time_step(lane, n, &b, e);
        if (!rc)
            cost_set(&eng->cost, n, a < b ? a : b);
        if (clock_ns() - from > CALIBRATION_NS)
            break;
    }
    return rc;
}
