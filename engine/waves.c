/* Draft waves: a drafter grows a tree for every sequence that wants one, a layer of all trees in each wave, as long as
 * a further wave is expected to pay. The draft model is a lane of its own: it falls behind while it is not asked, and
 * catches up with one chain. The target's first layers draft on the target's lane: what they have to read is what the
 * target has not computed, and all they write is written again when the target does. */
#include <math.h>
#include <string.h>

#include "drafting.h"
#include "lane.h"
#include "mem.h"
#include "strategy/strategy.h"
#include "strategy/verified.h"
#include "wave.h"

enum {
    CATCH_UP_SHARE = 32, /* steps that share the cost of what the draft model has missed */
    EXIT_MOST = 4,       /* tokens that the target has not computed */
};

/* That the node comes true. */
static float chance_of(const struct unit *u)
{
    return u->node < 0 ? 1 : u->seq->modelled.chance[u->node];
}

/* ---- What is worth expanding ---- */

/* What a copy or trigrams promise comes without asking anyone. */
static bool draft_suffices(const struct seq *s)
{
    if (s->req->p.decoding.source == DRAFT_SOURCE_COPY)
        return s->draft->n > 0 && s->draft->strong; /* the paper's order: what can be copied is copied */
    double r = tree_mean_rate(s), model = r / (1.0 - r + 1e-6);
    return s->draft->n > 0 && s->draft->chance[0] >= r && drafts_worth(s->draft, drafts_most(s)) >= model;
}

/* What a named verifier is to settle must find its place whatever is drawn. */
static bool has_place(struct engine *eng, struct seq *s)
{
    return !s->verified || seq_reserve(&eng->target, &s->kv, s->n_want + tree_shape(s).nodes);
}

/* The target's first layers read what it has not computed yet, and that is to be a token or two and not a prompt. */
static bool wants_model(const struct drafter *by, const struct seq *s)
{
    return s->drafter == by && drafts_now(s) && drafts_may_ask(s, drafter_source(by)) && drafts_most(s) > 0 &&
           (!by->is_exit || s->n_want <= EXIT_MOST) &&
           (s->req->p.decoding.source > DRAFT_SOURCE_COPY || !draft_suffices(s));
}

/* ---- Its K and V ---- */

/* While waves run, a sequence that its target drafts for has the target's table for a draft table as well. */
static void borrow_blocks(struct seq *s)
{
    s->draft_kv = (struct seq_kv){.n_computed = s->kv.n_computed, .block = s->kv.block, .n_block = s->kv.n_block};
    s->exit_done = 0;
}

/* The shape was named, or it is time to try once more. */
static bool must_expand(const struct wave *w, const struct unit *u)
{
    return tree_shape(u->seq).named || (u->node < 0 && u->seq == w->trial);
}

/* A wave pays where what it adds, by the second it takes, is more than what the step yields by the second so far. Units
 * that do not pay their share leave, until all that are left do. */
static void drop_unworthy(struct wave *w, double n_row_draft)
{
    const struct step_cost *target = &w->eng->target.cost, *draft = w->by->cost;
    for (int32_t before = -1; w->n > 0 && w->n != before;) {
        double rows = n_row_draft > w->n ? n_row_draft : w->n,
               cost =
                   cost_step(draft, (int32_t)rows) + cost_step(target, w->n_row + w->n) - cost_step(target, w->n_row),
               needed = cost / w->n * w->n_token / w->seconds;
        int32_t kept = 0;
        before = w->n;
        for (int32_t i = 0; i < w->n; i++) {
            struct unit *u = &w->unit[i];
            if (must_expand(w, u) || chance_of(u) * tree_mean_rate(u->seq) >= needed)
                w->unit[kept++] = *u;
            else if (u->node < 0)
                ledger_pass(&w->eng->ledger, drafter_source(w->by));
        }
        w->n = kept;
    }
}

static void choose(struct wave *w)
{
    struct engine *eng = w->eng;
    double n_row_draft = 0;
    for (struct seq *s = eng->running.head; s; s = s->next) {
        if (w->n == ALLOT_MAX_BID || !wants_model(w->by, s) || !has_place(eng, s))
            continue;
        tree_restart(s);
        w->n_auto += drafts_by_worth(s);
        if (w->by->is_exit)
            borrow_blocks(s);
        else if (s->draft_kv.n_block == 0)
            seq_match_prefix(&eng->draft, s, &s->draft_kv);
        s->n_draft_ctx = s->draft_kv.n_computed;
        n_row_draft += 1 + (double)(seq_n_tok(s) - s->draft_kv.n_computed - 1) / CATCH_UP_SHARE;
        w->unit[w->n++] = (struct unit){.seq = s, .node = -1, .readout = -1};
        if (verified_shares(s->verified))
            draft_heap_join(&w->heap, s);
    }
    w->n_asking = w->n;
    if (w->n > 0 && ledger_tries(&eng->ledger, drafter_source(w->by)))
        w->trial = w->unit[w->n_trial++ % (uint32_t)w->n].seq;
    drop_unworthy(w, n_row_draft);
}

/* ---- A wave's results ---- */

static void take_rows(struct wave *w, int32_t n)
{
    w->n_row += n;
    w->spare -= n;
}

/* The exit that was asked is not sure: the next one is, if there is one. */
static bool is_unsure(const struct unit *u, float best_logprob, struct unit *next, int32_t *n)
{
    const struct decoding_params *d = &u->seq->req->p.decoding;
    if (!u->seq->drafter->is_exit || d->exits.n == 0 || exp((double)best_logprob) > (double)d->exits.threshold[u->exit])
        return false;
    if (u->exit + 1 < d->exits.n && *n < MAX_UNIT)
        next[(*n)++] = (struct unit){.seq = u->seq, .node = u->node, .readout = -1, .exit = u->exit + 1};
    return true;
}

/* The first child is what a wave is paid for; its siblings are counted when rows are shared out. */
static void take_unit(struct wave *w, const struct unit *u, struct unit *next, int32_t *n)
{
    const struct lane *lane = w->by->lane;
    const struct readout *r = &lane->plan.readout[u->readout];
    if (is_unsure(u, lane->result.f[r->f0], next, n))
        return;
    float chance = tree_grow(u->seq, u->node, lane->result.i + r->i0, lane->result.f + r->f0);
    w->n_token += chance;
    take_rows(w, chance > 0);
}

/* What the draft model says after nodes from which nothing is drawn yet. Returns how many of the n it was asked. */
static int32_t read_units(const struct wave *w, const struct unit *u, int32_t n, int32_t *node)
{
    const struct lane *lane = w->by->lane;
    int32_t n_read = 0;
    for (int32_t i = 0; i < n; i++) {
        if (u[i].readout < 0)
            continue;
        const struct readout *r = &lane->plan.readout[u[i].readout];
        verified_read(u[i].seq, u[i].node, lane->result.i + r->i0, lane->result.f + r->f0);
        node[n_read++] = u[i].node;
    }
    return n_read;
}

/* A depth of a tree whose drafts are drawn all at once. */
static void take_depth(struct wave *w, const struct unit *u, int32_t n)
{
    int32_t node[MAX_UNIT], n_read = read_units(w, u, n, node), before = u->seq->modelled.n;
    if (n_read > 0)
        w->n_token += tree_grow_depth(u->seq, node, n_read);
    take_rows(w, u->seq->modelled.n - before);
}

/* The nodes that this wave brought become the next one's units. */
static void next_units(struct wave *w, struct seq *s, int32_t from, struct unit *unit, int32_t *n)
{
    for (int32_t i = from; i < s->modelled.n && *n < MAX_UNIT; i++)
        if (tree_may_grow(s, i) && s->n_held + (i - from) < PLAN_MAX_TREE)
            unit[(*n)++] = (struct unit){.seq = s, .node = i, .readout = -1};
}

/* The n units of one sequence. */
static void take_units(struct wave *w, const struct unit *u, int32_t n, struct unit *next, int32_t *n_next)
{
    struct seq *s = u->seq;
    int32_t node[MAX_UNIT];
    if (verified_shares(s->verified))
        read_units(w, u, n, node);
    else if (verified_is_joint(s->verified))
        take_depth(w, u, n);
    else
        for (int32_t k = 0; k < n; k++)
            if (u[k].readout >= 0)
                take_unit(w, &u[k], next, n_next);
}

/* The trees that share a budget draw when all of them have read. */
static void take_heap(struct wave *w, struct unit *unit, int32_t *n)
{
    int32_t node[PLAN_MAX_TREE];
    take_rows(w, draft_heap_spend(&w->heap, w->spare, &w->n_token));
    for (int32_t i = 0; i < w->heap.n_seq; i++) {
        struct seq *s = w->heap.seq[i];
        int32_t room = MAX_UNIT - *n < PLAN_MAX_TREE - s->n_held ? MAX_UNIT - *n : PLAN_MAX_TREE - s->n_held,
                n_node = draft_heap_wants(&w->heap, i, node, room);
        for (int32_t k = 0; k < n_node; k++)
            unit[(*n)++] = (struct unit){.seq = s, .node = node[k], .readout = -1};
    }
}

static void take_wave(struct wave *w)
{
    struct unit *next = w->next;
    int32_t n_next = 0;
    for (int32_t i = 0, n; i < w->n; i += n) {
        struct seq *s = w->unit[i].seq;
        int32_t from = s->modelled.n;
        n = wave_run_length(w, i);
        if (w->unit[i].node < 0 && !w->by->is_exit)
            seq_commit(&w->eng->draft, s, &s->draft_kv, 0); /* what was caught up is published */
        take_units(w, &w->unit[i], n, next, &n_next);
        if (!verified_shares(s->verified))
            next_units(w, s, from, next, &n_next);
    }
    take_heap(w, next, &n_next);
    memcpy(w->unit, next, sizeof *next * (size_t)n_next);
    w->n = n_next;
}

int waves_create(struct engine *eng, struct err *e)
{
    eng->wave = mem_calloc(1, sizeof *eng->wave);
    if (!eng->wave)
        return err_set(e, ERR_NOMEM, "out of memory");
    eng->wave->eng = eng;
    return 0;
}

/* Of the deepest exit that the wave asks. */
static struct step_cost *wave_cost(const struct wave *w)
{
    const struct model *m = &w->eng->model;
    int32_t n_layer = 0, i = 0;
    if (!w->by->is_exit)
        return w->by->cost;
    for (int32_t k = 0; k < w->n; k++)
        if (w->unit[k].readout >= 0 && unit_layers(&w->unit[k]) > n_layer)
            n_layer = unit_layers(&w->unit[k]);
    while (i + 1 < m->n_exit && m->exit_layer[i] < n_layer)
        i++;
    return &w->by->cost[i];
}

/* Waves of one drafter, as long as a further one is expected to pay. */
static int run_drafter(struct wave *w, struct err *e)
{
    struct lane *lane = w->by->lane;
    const struct step_cost *target = &w->eng->target.cost;
    int64_t from = clock_ns();
    w->n = w->n_auto = 0;
    w->trial = NULL;
    draft_heap_reset(&w->heap);
    choose(w);
    while (w->n > 0 && w->spare > 0) {
        double before = cost_step(target, w->n_row);
        wave_plan(w);
        if (lane->plan.n.n_row == 0)
            break;
        lane_plan_moves(lane);
        struct step_cost *cost = wave_cost(w);
        int rc = lane_run(lane, cost, e);
        if (rc)
            return rc;
        w->seconds += cost_step(cost, lane->plan.n.n_row);
        take_wave(w);
        w->seconds += cost_step(target, w->n_row) - before;
        drop_unworthy(w, 0);
    }
    drafts_asked(w->eng, drafter_source(w->by), from, w->n_auto, w->n_asking);
    return 0;
}

int waves_run(struct engine *eng, int32_t n_row, int32_t spare, double n_token, struct err *e)
{
    struct wave *w = eng->wave;
    int rc = 0;
    w->n_row = n_row;
    w->spare = spare;
    w->seconds = cost_step(&eng->target.cost, (int32_t)n_token);
    w->n_token = n_token;
    for (int i = 0; i < N_DRAFTER && !rc; i++) {
        w->by = &eng->drafter[i];
        if (w->by->lane)
            rc = run_drafter(w, e);
    }
    for (struct seq *s = eng->running.head; s; s = s->next) {
        if (s->drafter && s->drafter->is_exit)
            s->draft_kv = (struct seq_kv){0}; /* the table was the target's */
        if (s->draft == &s->modelled)
            tree_sort(s);
    }
    return rc;
}
