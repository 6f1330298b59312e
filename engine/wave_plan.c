/* The plan of a wave: what a drafter has missed, a layer of its trees, and what a deeper exit has to read. */
#include "wave.h"

#include "lane.h"
#include "strategy/strategy.h"

enum { LEAST_WAVE = 64 }; /* rows of a wave that are always granted */

static bool reserve(struct engine *eng, struct seq *s, int32_t n_slot)
{
    if (!s->drafter->is_exit)
        return seq_reserve(&eng->draft, &s->draft_kv, n_slot);
    bool ok = seq_reserve(&eng->target, &s->kv, s->draft_kv.n_computed - s->kv.n_computed + n_slot);
    s->draft_kv.n_block = s->kv.n_block;
    return ok;
}

static int open_span(struct step_plan *p, const struct unit *u, int32_t n_chain, int law)
{
    const struct seq *s = u->seq;
    struct span span = {.seq = (int32_t)s->req->order,
                        .ctx_len = s->draft_kv.n_computed,
                        .n_held = s->n_held,
                        .held0 = p->n.n_held,
                        .n_chain = n_chain,
                        .n_counted = n_chain,
                        .group = -1,
                        .law = law,
                        .layer1 = (int16_t)unit_layers(u)};
    return plan_span(p, &span);
}

/* The draft model's own order of tokens matters even where the target only takes the first. */
static int plan_draft_law(struct seq *s, struct step_plan *p)
{
    int law = seq_plan_law(s, p, 0);
    if (law >= 0 && p->law[law].temperature == 0)
        p->law[law].temperature = 1;
    return law;
}

static int add_candidates(struct step_plan *p, int32_t row, struct unit *u)
{
    struct readout top = {.kind = READ_TOPK, .row = row, .n = TREE_CANDIDATES, .bank = -1};
    u->readout = plan_readout(p, &top, NULL);
    return u->readout < 0 ? u->readout : 0;
}

/* The first wave: a chain of the tokens that the draft model has not seen, or as many as fit the budget. */
static int plan_catch_up(struct engine *eng, struct step_plan *p, struct unit *u, int32_t *budget)
{
    struct seq *s = u->seq;
    int32_t from = s->draft_kv.n_computed, n = seq_n_tok(s) - from;
    bool ends = n <= *budget;
    n = ends ? n : *budget;
    if (n <= 0 || !reserve(eng, s, n))
        return -ERR_NOMEM;
    int law = ends ? plan_draft_law(s, p) : -1;
    if ((ends && law < 0) || open_span(p, u, n, law) < 0)
        return -ERR_NOMEM;
    int32_t row0 = p->n.n_row;
    for (int32_t i = 0; i < n; i++)
        if (plan_row(p, seq_tok(s, from + i), from + i, (int16_t)(i - 1), 0) < 0)
            return -ERR_NOMEM;
    if (plan_blocks(p, s->draft_kv.block, s->draft_kv.n_block) < 0 || (ends && add_candidates(p, row0 + n - 1, u)))
        return -ERR_NOMEM;
    *budget -= n;
    return 0;
}

/* The tree bits that a row for `node` sees: held rows are bits in order. */
static uint64_t sees_of(const struct seq *s, int32_t node, int32_t bit)
{
    uint64_t sees = (uint64_t)1 << bit;
    for (int32_t above = s->modelled.parent[node]; above >= 0; above = s->modelled.parent[above])
        sees |= (uint64_t)1 << tree_held_at(s, above);
    return sees;
}

/* A later wave: a tree row for each of the sequence's n units, whose parents are held rows of the waves before. */
static int plan_layer(struct engine *eng, struct step_plan *p, struct unit *u, int32_t n, int32_t *budget)
{
    struct seq *s = u->seq;
    const struct draft *d = &s->modelled;
    if (n > *budget || !reserve(eng, s, s->n_held + n))
        return -ERR_NOMEM;
    int law = plan_draft_law(s, p);
    if (law < 0 || open_span(p, u, 0, law) < 0)
        return -ERR_NOMEM;
    for (int32_t i = 0; i < s->n_held; i++) {
        int32_t above = d->parent[s->held[i]];
        if (plan_held(p, d->tok[s->held[i]], above < 0 ? PARENT_CTX : (int16_t)HELD_PARENT(tree_held_at(s, above))) < 0)
            return -ERR_NOMEM;
    }
    int32_t row0 = p->n.n_row, pos0 = seq_n_tok(s);
    for (int32_t i = 0; i < n; i++) {
        int32_t node = u[i].node, above = d->parent[node];
        uint64_t sees = sees_of(s, node, s->n_held + i);
        int16_t parent = above < 0 ? PARENT_CTX : (int16_t)HELD_PARENT(tree_held_at(s, above));
        if (plan_row(p, d->tok[node], pos0 + tree_depth(s, above), parent, sees) < 0 ||
            add_candidates(p, row0 + i, &u[i]))
            return -ERR_NOMEM;
    }
    if (plan_blocks(p, s->draft_kv.block, s->draft_kv.n_block) < 0)
        return -ERR_NOMEM;
    for (int32_t i = 0; i < n; i++)
        s->held[s->n_held++] = (int16_t)u[i].node;
    *budget -= n;
    return 0;
}

/* A deeper exit is asked what a shallower one was not sure of (S2D). Rows that left early have nothing in the layers
 * between, so all that the target has not computed there runs again, as a chain: the drafted tokens, and the decided
 * ones unless they have been so deep in this step. Below the shallower exit they write what stands there already. */
static int plan_deeper(struct step_plan *p, struct unit *u, int32_t *budget)
{
    struct seq *s = u->seq;
    int32_t n_tok = seq_n_tok(s), depth = tree_depth(s, u->node), drafted[DRAFT_MAX],
            ctx = s->exit_done >= u->exit ? n_tok : s->kv.n_computed, n = n_tok + depth - ctx;
    for (int32_t node = u->node, i = depth; node >= 0; node = s->modelled.parent[node])
        drafted[--i] = s->modelled.tok[node];
    int law = n > *budget ? -1 : plan_draft_law(s, p);
    struct span span = {.seq = (int32_t)s->req->order,
                        .ctx_len = ctx,
                        .n_chain = n,
                        .n_counted = n_tok - ctx,
                        .group = -1,
                        .law = law,
                        .layer1 = (int16_t)unit_layers(u)};
    if (law < 0 || plan_span(p, &span) < 0)
        return -ERR_NOMEM;
    int32_t row0 = p->n.n_row;
    for (int32_t i = 0; i < n; i++) {
        int32_t pos = ctx + i, tok = pos < n_tok ? seq_tok(s, pos) : drafted[pos - n_tok];
        if (plan_row(p, tok, pos, (int16_t)(i - 1), 0) < 0)
            return -ERR_NOMEM;
    }
    if (plan_blocks(p, s->draft_kv.block, s->draft_kv.n_block) < 0 || add_candidates(p, row0 + n - 1, u))
        return -ERR_NOMEM;
    s->exit_done = u->exit > s->exit_done ? u->exit : s->exit_done;
    *budget -= n;
    return 0;
}

/* A draft model that is far behind catches up little by little: a wave takes half a step of the target at most. */
static int32_t wave_rows(const struct wave *w)
{
    int32_t n = w->eng->opt.max_batch_tokens;
    while (n > LEAST_WAVE && n / 2 >= w->n && cost_step(w->by->cost, n) > w->seconds / 2)
        n /= 2;
    return n;
}

static int plan_units(struct engine *eng, struct step_plan *p, struct unit *u, int32_t n, int32_t *budget)
{
    if (u->exit > 0)
        return plan_deeper(p, u, budget);
    return u->node < 0 ? plan_catch_up(eng, p, u, budget) : plan_layer(eng, p, u, n, budget);
}

void wave_plan(struct wave *w)
{
    struct step_plan *p = &w->by->lane->plan;
    int32_t budget = wave_rows(w);
    plan_reset(p);
    for (int32_t i = 0, n; i < w->n; i += n) {
        struct seq *s = w->unit[i].seq;
        struct plan_limits before = p->n;
        bool first = w->unit[i].node < 0 && w->unit[i].exit == 0;
        int32_t n_held = s->n_held, rows = budget;
        n = wave_run_length(w, i);
        if (plan_units(w->eng, p, &w->unit[i], n, &budget)) {
            p->n = before;
            s->n_held = n_held;
            for (int32_t k = 0; k < n; k++)
                w->unit[i + k].readout = -1;
        } else if (first) {
            s->draft_kv.n_computed += rows - budget;
            s->n_draft_ctx = s->draft_kv.n_computed;
        }
    }
}
