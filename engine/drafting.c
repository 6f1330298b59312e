/* Drafts in a step: every sequence that reaches its end says what it would have verified, and the rows the step has
 * left go to the drafts that are worth most. */
#include "drafting.h"

#include "draft/allot.h"
#include "strategy/strategy.h"

struct drafter *drafter_of(struct engine *eng, const struct decoding_params *d)
{
    struct drafter *model = &eng->drafter[DRAFTER_MODEL], *exit = &eng->drafter[DRAFTER_EXIT];
    enum draft_source source = d->source == DRAFT_SOURCE_COPY ? d->fallback : d->source;
    bool any = d->source == DRAFT_SOURCE_AUTO;
    if (d->strategy == DECODE_OFF || !decodes_exactly(d->strategy))
        return NULL;
    if (model->lane && (any || source == DRAFT_SOURCE_MODEL))
        return model;
    return exit->lane && (any || source == DRAFT_SOURCE_EXIT) ? exit : NULL;
}

struct history_text drafts_text(const struct seq *s)
{
    const struct request *r = s->req;
    return (struct history_text){.part = {r->prediction, r->prompt, s->out},
                                 .n_part = {r->n_prediction, r->n_prompt, s->n_out},
                                 .n = r->n_prediction + r->n_prompt + s->n_out};
}

bool drafts_now(const struct seq *s)
{
    if (s->verified && !request_has_room(s->req, verified_room(s->req)))
        return false; /* what a verifier has decided must be said: it could not decide it again */
    return s->strategy == &strategy_chain && s->req->p.decoding.strategy != DECODE_OFF &&
           s->req->eng->opt.max_draft > 0 && seq_draws(s);
}

/* The last token of max_tokens needs no row of its own, and a span has one law, so a draft must not reach over the
 * place where min_tokens ends. */
int32_t drafts_most(const struct seq *s)
{
    const struct gen_params *p = &s->req->p;
    int32_t max = p->max_tokens - s->n_out - 1, until_min = p->min_tokens - s->n_out - 1;
    if (until_min >= 0 && until_min < max)
        max = until_min;
    if (p->decoding.max_draft && p->decoding.max_draft < max)
        max = p->decoding.max_draft;
    return max < s->req->eng->opt.max_draft ? max : s->req->eng->opt.max_draft;
}

int32_t drafts_named(const struct seq *s, int32_t by_default)
{
    const struct decoding_params *d = &s->req->p.decoding;
    int32_t n = d->max_draft ? d->max_draft : by_default, most = drafts_most(s);
    return d->strategy != DECODE_SPECULATIVE ? 0 : n < most ? n : most;
}

double drafts_worth(const struct draft *d, int32_t most)
{
    double sum = 0;
    for (int32_t i = 0; i < d->n && i < most; i++)
        sum += d->chance[i];
    return sum;
}

static const struct draft no_draft;

static void propose_copies(struct engine *eng)
{
    int64_t from = clock_ns();
    int32_t n = 0, n_auto = 0;
    for (struct seq *s = eng->running.head; s; s = s->next) {
        s->rows.n = 0;
        s->rows.is_chain = true;
        s->draft = &no_draft;
        if (!s->copy.on || !drafts_now(s) || !drafts_may_ask(s, DRAFT_SOURCE_COPY))
            continue;
        struct history_text t = drafts_text(s);
        copy_propose(&s->copy, &eng->copy_rates, &t, &s->copied);
        s->draft = &s->copied;
        n_auto += drafts_by_worth(s);
        n++;
    }
    drafts_asked(eng, DRAFT_SOURCE_COPY, from, n_auto, n);
}

/* Of its draft; AUTO: it has none. */
static enum draft_source source_of(const struct seq *s)
{
    return s->draft == &no_draft     ? DRAFT_SOURCE_AUTO
           : s->draft == &s->copied  ? DRAFT_SOURCE_COPY
           : s->draft == &s->guessed ? DRAFT_SOURCE_TRIGRAM
                                     : drafter_source(s->drafter);
}

/* Rows where the request names drafting but no number; a draft model's tree has as many nodes as are wanted. */
static const int32_t by_default[N_DRAFT_SOURCE] = {[DRAFT_SOURCE_COPY] = COPY_DEFAULT_DRAFT,
                                                   [DRAFT_SOURCE_MODEL] = DRAFT_MAX,
                                                   [DRAFT_SOURCE_EXIT] = DRAFT_MAX,
                                                   [DRAFT_SOURCE_TRIGRAM] = TRIGRAM_DEFAULT_DRAFT};

static int32_t sure_rows(const struct seq *s, int32_t most)
{
    if (s->verified) /* which rows are left out must not depend on what was drawn */
        return most;
    int32_t n = drafts_named(s, by_default[source_of(s)]);
    return !s->draft->strong ? 0 : n < most ? n : most;
}

static int32_t collect_bids(struct engine *eng, struct bid *bid, struct seq **bidder)
{
    int32_t n = 0;
    for (struct seq *s = eng->running.head; s; s = s->next) {
        if (n == ALLOT_MAX_BID || !drafts_now(s) || s->draft->n == 0)
            continue;
        /* A copy is as long as its rows; a tree's depth was bounded by those who made it, and rows are bounded here. */
        int32_t most = s->draft == &s->copied ? drafts_most(s) : eng->opt.max_draft,
                max = most < s->draft->n ? most : s->draft->n;
        bid[n] = (struct bid){.draft = s->draft, .max = max, .must = sure_rows(s, max)};
        bidder[n] = s;
        n += max > 0;
    }
    return n;
}

enum { TRIAL_MOST = 7 }; /* rows */
static const float TRIAL_CHANCE = .5f;

static int32_t likely_rows(const struct bid *b)
{
    int32_t n = 0;
    while (n < b->max && n < TRIAL_MOST && b->draft->chance[n] >= TRIAL_CHANCE)
        n++;
    return n;
}

/* Rows that are more likely than not, and were not bought because they seem too dear: what is not bought is not timed.
 * So now and then one sequence's are. */
static void try_rows(struct engine *eng, struct bid *bid, struct seq **bidder, int32_t n, int32_t spare)
{
    struct bid *best = NULL;
    for (int32_t i = 0; i < n; i++) {
        spare -= bid[i].n;
        if (drafts_by_worth(bidder[i]) && likely_rows(&bid[i]) > bid[i].n &&
            (!best || likely_rows(&bid[i]) > likely_rows(best)))
            best = &bid[i];
    }
    if (!best || likely_rows(best) - best->n > spare)
        return;
    if (!ledger_tries(&eng->ledger, DRAFT_SOURCE_AUTO)) {
        ledger_pass(&eng->ledger, DRAFT_SOURCE_AUTO);
        return;
    }
    ledger_ask(&eng->ledger, DRAFT_SOURCE_AUTO);
    best->n = likely_rows(best);
}

/* Tokens a second that the step yields, with and without its drafts, drafting counted as it was. */
static void expect_gain(struct engine *eng, int32_t n_row, double n_token)
{
    const struct step_cost *cost = &eng->target.cost;
    struct step_gain *g = &eng->gain;
    double sure = n_token;
    int32_t n_drafted = 0;
    for (const struct seq *s = eng->running.head; s; s = s->next)
        for (int32_t i = 0; i < s->rows.n; i++, n_drafted++)
            n_token += s->draft->chance[s->rows.node[i]];
    g->plain = n_drafted > 0 ? sure / cost_step(cost, n_row) : 0;
    g->expected = n_token / ((double)(clock_ns() - g->from_ns) * 1e-9 + cost_step(cost, n_row + n_drafted));
}

int drafting_pick(struct engine *eng, int32_t n_row, int32_t spare, struct err *e)
{
    struct bid bid[ALLOT_MAX_BID];
    struct seq *bidder[ALLOT_MAX_BID];
    books_open(eng);
    int32_t n_token = eng->books.n_token;
    eng->gain = (struct step_gain){.from_ns = clock_ns(), .n_token = eng->metrics.now.n_output_tokens};
    propose_copies(eng);
    trigrams_run(eng, n_row, n_token);
    int rc = spare > 0 ? waves_run(eng, n_row, spare, n_token, e) : 0;
    int32_t n = collect_bids(eng, bid, bidder);
    if (rc || n == 0 || spare <= 0)
        return rc;
    draft_allot(bid, n, spare, n_row, n_token, &eng->target.cost);
    try_rows(eng, bid, bidder, n, spare);
    for (int32_t i = 0; i < n; i++) {
        struct seq *s = bidder[i];
        if (bid[i].n && seq_reserve(&eng->target, &s->kv, s->n_want + bid[i].n))
            draft_lay_out(s->draft, bid[i].n, &s->rows);
        else
            seq_trim(&eng->target, &s->kv, s->n_want); /* a draft never takes another's blocks */
    }
    expect_gain(eng, n_row, n_token);
    return 0;
}

/* ---- What came of it ---- */

void drafting_settle(struct engine *eng)
{
    const struct step_gain *g = &eng->gain;
    struct engine_metrics *m = &eng->metrics.now;
    books_close(eng);
    if (!(g->plain > 0))
        return;
    m->n_gain++;
    m->gain_expected += g->expected / g->plain;
    m->gain += (double)(m->n_output_tokens - g->n_token) / ((double)(clock_ns() - g->from_ns) * 1e-9) / g->plain;
}

void drafting_count_step(struct engine *eng, struct seq *s)
{
    struct request_decoding *d = &s->req->decoding;
    const struct draft_rows *rows = &s->rows;
    struct engine_metrics *m = &eng->metrics.now;
    enum draft_source source = source_of(s);
    int32_t n_depth = 0;
    for (int32_t i = 0; i < rows->n; i++) {
        n_depth = rows->depth[i] >= n_depth ? rows->depth[i] + 1 : n_depth;
        m->expected_by[source] += s->draft->chance[rows->node[i]];
    }
    d->n_step++;
    d->n_drafted += rows->n;
    m->n_drafts += rows->n > 0;
    m->n_draft_tokens += (uint64_t)rows->n;
    m->n_drafted_by[source] += (uint64_t)rows->n;
    eng->books.n_drafted += rows->n;
    if (drafts_by_worth(s)) {
        eng->books.n_row[source] += rows->n;
        m->n_auto_step[rows->n ? source : DRAFT_SOURCE_AUTO]++;
    }
    for (int32_t i = 0; i < n_depth; i++)
        d->drafted_at[i]++;
    if (rows->n && s->draft->predicted)
        atomic_fetch_add_explicit(&s->req->n_predicted, rows->n, memory_order_relaxed);
}

void drafting_count_true(struct engine *eng, struct seq *s, int32_t i)
{
    struct request_decoding *d = &s->req->decoding;
    if (drafts_by_worth(s)) {
        eng->books.n_true[source_of(s)]++;
        if (i == 0)
            ledger_hit(&eng->ledger, (int32_t)source_of(s));
    }
    d->n_accepted++;
    d->accepted_at[i]++;
    if (s->draft->predicted)
        atomic_fetch_add_explicit(&s->req->n_predicted_true, 1, memory_order_relaxed);
    eng->metrics.now.n_accepted_tokens++;
    eng->metrics.now.n_accepted_by[source_of(s)]++;
    eng->metrics.now.n_accepted_at[i]++;
}
