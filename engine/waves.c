/* Draft waves: the draft model writes chains, for all sequences that want one at once, a token of each in every wave.
 * It draws as the target does, by the same law and the same noise, so that both mostly draw the same token (the
 * position-keyed coupling, autoregressive.md section 0). The draft model is a lane of its own: it falls behind while it
 * is not asked, and catches up with one chain. */
#include <math.h>

#include "draft/allot.h"
#include "drafting.h"
#include "lane.h"
#include "strategy/strategy.h"

enum {
    MODEL_DEFAULT_DRAFT = 5, /* tokens a step where the request names the model but no number */
    TRY_AGAIN = 128,         /* steps after which a model that did not pay is asked once more */
    CATCH_UP_SHARE = 32,     /* steps that share the cost of what the draft model has missed */
};

/* A drafted token is classed by the probability its model gave it. */
static uint8_t confidence(double p)
{
    static const double above[N_GUESS_CLASS - 1] = {.15, .3, .45, .6, .75, .88, .96};
    uint8_t c = 0;
    while (c < N_GUESS_CLASS - 1 && p >= above[c])
        c++;
    return c;
}

static const float PRIOR_RATE = .6f;

struct wave { /* one step's drafting; owner: waves_run */
    struct engine *eng;
    struct seq *seq[ALLOT_MAX_BID];
    double chance[ALLOT_MAX_BID]; /* that all the sequence's drafted tokens come true */
    int32_t n;
    int32_t n_row, spare;    /* rows the target has, rows it can still take */
    double seconds, n_token; /* what the step costs and yields so far */
};

/* ---- Who is drafted for ---- */

static float mean_rate(const struct engine *eng, const struct seq *s)
{
    return accept_mean(&s->model_rates, &eng->model_rates, PRIOR_RATE);
}

/* What a copy promises comes without asking anyone. */
static bool copy_suffices(const struct engine *eng, const struct seq *s)
{
    double r = mean_rate(eng, s), model = r / (1.0 - r + 1e-6);
    return s->copied.n > 0 && s->copied.accept[0] >= r && drafts_worth(&s->copied, drafts_most(s)) >= model;
}

static bool wants_model(const struct engine *eng, const struct seq *s)
{
    return drafts_now(s) && drafts_most(s) > 0 && s->req->p.decoding.source != DRAFT_SOURCE_COPY &&
           (s->req->p.decoding.source == DRAFT_SOURCE_MODEL || !copy_suffices(eng, s));
}

/* Rows of the target's that one token more of every sequence in the wave costs, in seconds. */
static double verify_cost(const struct wave *w, int32_t n_more)
{
    const struct step_cost *c = &w->eng->target.cost;
    return cost_step(c, w->n_row + n_more) - cost_step(c, w->n_row);
}

/* A wave pays where what it adds, by the second it takes, is more than what the step yields by the second without it.
 * Those it does not pay for leave; who is left pays for the whole. */
static void drop_unworthy(struct wave *w, const int32_t *n_row_draft)
{
    for (;;) {
        int32_t rows = 0, kept = 0;
        for (int32_t i = 0; i < w->n; i++)
            rows += n_row_draft ? n_row_draft[i] : 1;
        double cost = cost_step(&w->eng->draft.cost, rows) + verify_cost(w, w->n),
               needed = w->n ? cost / w->n * w->n_token / w->seconds : 0;
        for (int32_t i = 0; i < w->n; i++) {
            struct seq *s = w->seq[i];
            bool named = drafts_named(s, MODEL_DEFAULT_DRAFT) > s->modelled.n,
                 pays = w->chance[i] * mean_rate(w->eng, s) >= needed;
            bool again = s->modelled.n == 0 && s->n_undrafted >= TRY_AGAIN;
            if (named || pays || again) {
                w->seq[kept] = s;
                w->chance[kept++] = w->chance[i];
            } else if (s->modelled.n == 0) {
                s->n_undrafted++;
            }
        }
        if (kept == w->n || n_row_draft)
            return (void)(w->n = kept);
        w->n = kept;
    }
}

static void choose(struct wave *w)
{
    struct engine *eng = w->eng;
    int32_t n_row_draft[ALLOT_MAX_BID];
    for (struct seq *s = eng->running.head; s; s = s->next) {
        w->n_token += s->n_want > 0 && s->kv.n_computed + s->n_want == seq_n_tok(s);
        if (w->n == ALLOT_MAX_BID || !wants_model(eng, s))
            continue;
        drafts_settle_model(eng, s);
        if (s->draft_kv.n_block == 0)
            seq_match_prefix(&eng->draft, s, &s->draft_kv);
        n_row_draft[w->n] = 1 + (seq_n_tok(s) - s->draft_kv.n_computed - 1) / CATCH_UP_SHARE;
        w->chance[w->n] = 1;
        w->seq[w->n++] = s;
    }
    drop_unworthy(w, n_row_draft);
}

/* ---- A wave ---- */

/* The tokens the draft model has not seen, the drafted ones last; a draw behind them if they fit the wave. */
static int plan_seq(struct lane *lane, struct seq *s, int32_t n)
{
    struct step_plan *p = &lane->plan;
    int32_t from = s->draft_kv.n_computed, n_tok = seq_n_tok(s);
    bool ends = from + n == n_tok + s->modelled.n;
    int law = ends ? seq_plan_law(s, p) : -1;
    if (ends && law < 0)
        return law;
    struct span span = {.seq = (int32_t)s->req->order,
                        .ctx_len = from,
                        .n_chain = n,
                        .n_counted = n,
                        .group = -1,
                        .law = law,
                        .layer1 = (int16_t)lane->env.n_layer};
    if (plan_span(p, &span) < 0)
        return -ERR_NOMEM;
    int32_t row0 = p->n.n_row;
    for (int32_t i = from; i < from + n; i++) {
        int32_t tok = i < n_tok ? seq_tok(s, i) : s->modelled.tok[i - n_tok];
        if (plan_row(p, tok, i, (int16_t)(i - from - 1), 0) < 0)
            return -ERR_NOMEM;
    }
    struct readout draw = {.kind = READ_SAMPLE, .row = row0 + n - 1, .n = 1, .bank = -1};
    if (plan_blocks(p, s->draft_kv.block, s->draft_kv.n_block) < 0 || (ends && plan_readout(p, &draw, NULL) < 0))
        return -ERR_NOMEM;
    return ends;
}

/* Plans as many as fit; drew[i]: the readout of sequence i, -1: none. Those that got no place leave. */
static void plan_wave(struct wave *w, int32_t *drew)
{
    struct lane *lane = &w->eng->draft;
    int32_t budget = w->eng->opt.max_batch_tokens, kept = 0;
    plan_reset(&lane->plan);
    for (int32_t i = 0; i < w->n; i++) {
        struct seq *s = w->seq[i];
        int32_t want = seq_n_tok(s) + s->modelled.n - s->draft_kv.n_computed, n = want < budget ? want : budget;
        if (n <= 0 || !seq_reserve(lane, &s->draft_kv, n))
            continue;
        struct plan_limits before = lane->plan.n;
        int32_t readout = lane->plan.n.n_readout, ends = plan_seq(lane, s, n);
        if (ends < 0) {
            lane->plan.n = before;
            continue;
        }
        budget -= n;
        s->draft_kv.n_computed += n;
        drew[kept] = ends ? readout : -1;
        w->seq[kept] = s;
        w->chance[kept++] = w->chance[i];
    }
    w->n = kept;
    lane_plan_moves(lane);
}

/* A drawn token joins its draft; who drew none, or has enough, leaves. */
static void take_wave(struct wave *w, const int32_t *drew)
{
    const struct lane *lane = &w->eng->draft;
    int32_t kept = 0;
    for (int32_t i = 0; i < w->n; i++) {
        struct seq *s = w->seq[i];
        struct draft *d = &s->modelled;
        if (s->draft_kv.n_computed <= seq_n_tok(s)) /* nothing drafted is published */
            seq_commit(&w->eng->draft, s, &s->draft_kv, 0);
        if (drew[i] < 0)
            continue;
        const struct readout *r = &lane->plan.readout[drew[i]];
        int32_t tok = lane->result.i[r->i0];
        if (tok < 0)
            continue;
        uint8_t c = confidence(exp(lane->result.f[r->f0]));
        d->tok[d->n] = tok;
        d->guess[d->n] = c;
        d->accept[d->n] = accept_rate(&s->model_rates, &w->eng->model_rates, c, PRIOR_RATE);
        w->chance[i] *= d->accept[d->n++];
        w->n_token += w->chance[i];
        w->n_row++;
        w->spare--;
        s->draft = d;
        d->strong = true;
        s->n_undrafted = 0;
        int32_t named = drafts_named(s, MODEL_DEFAULT_DRAFT);
        if (d->n < (named ? named : drafts_most(s))) {
            w->seq[kept] = s;
            w->chance[kept++] = w->chance[i];
        }
    }
    w->n = kept;
}

int waves_run(struct engine *eng, int32_t n_row, int32_t spare, struct err *e)
{
    struct wave w = {.eng = eng, .n_row = n_row, .spare = spare, .seconds = cost_step(&eng->target.cost, n_row)};
    int32_t drew[ALLOT_MAX_BID];
    choose(&w);
    while (w.n > 0 && w.spare >= w.n) {
        double before = cost_step(&eng->target.cost, w.n_row);
        plan_wave(&w, drew);
        if (w.n == 0)
            break;
        int rc = lane_run(&eng->draft, e);
        if (rc)
            return rc;
        w.seconds += cost_step(&eng->draft.cost, eng->draft.plan.n.n_row);
        take_wave(&w, drew);
        w.seconds += cost_step(&eng->target.cost, w.n_row) - before;
        drop_unworthy(&w, NULL);
    }
    return 0;
}
