/* The scheduler: which sequences run in a step, and how many rows each gets. There is no prefill and no decode, only
 * tokens not yet computed and a budget. Sequences stand in rank order (priority, arrival, choice); decoding ones are
 * served first; when blocks run out the lowest rank is preempted and recomputes.
 *
 * A long prompt delays nobody much: beside streams it gets the rows with which a step lasts little longer than without
 * them, alone no more than a step computes well, and of those no more than half while others wait behind it. */
#include "gang.h"
#include "strategy/strategy.h"

/* ---- Lists in rank order ---- */

static bool ranks_before(const struct seq *a, const struct seq *b)
{
    if (a->req->p.priority != b->req->p.priority)
        return a->req->p.priority < b->req->p.priority;
    if (a->req->order != b->req->order)
        return a->req->order < b->req->order;
    return a->choice < b->choice;
}

static void list_insert(struct seq_list *l, struct seq *s)
{
    struct seq *after = l->tail; /* newcomers mostly rank last */
    while (after && ranks_before(s, after))
        after = after->prev;
    s->prev = after;
    s->next = after ? after->next : l->head;
    *(s->prev ? &s->prev->next : &l->head) = s;
    *(s->next ? &s->next->prev : &l->tail) = s;
    l->n++;
}

static void list_remove(struct seq_list *l, struct seq *s)
{
    *(s->prev ? &s->prev->next : &l->head) = s->next;
    *(s->next ? &s->next->prev : &l->tail) = s->prev;
    s->prev = s->next = NULL;
    l->n--;
}

void sched_add(struct engine *eng, struct seq *s)
{
    s->state = SEQ_WAITING;
    list_insert(&eng->waiting, s);
}

void sched_remove(struct engine *eng, struct seq *s)
{
    if (s->state == SEQ_WAITING)
        list_remove(&eng->waiting, s);
    else if (s->state == SEQ_RUNNING) {
        list_remove(&eng->running, s);
        eng->n_place -= gang_places(s);
    }
    s->n_want = s->rows.n = 0;
}

void sched_run(struct engine *eng, struct seq *s)
{
    s->state = SEQ_RUNNING;
    s->n_want = 0;
    list_insert(&eng->running, s);
    eng->n_place += gang_places(s);
}

static bool has_places(const struct engine *eng, const struct seq *s)
{
    return eng->n_place + gang_places(s) <= eng->limits.max_seqs;
}

/* A gang goes as a whole: what is left of it could not go on. Returns the rows that its step had been granted. */
static int32_t preempt(struct engine *eng, struct seq *s)
{
    int32_t n = 0;
    if (s->gang) {
        n = gang_suspend(eng, s->gang);
        s = s->gang->leader;
    }
    n += s->n_want;
    sched_remove(eng, s);
    seq_release(eng, s);
    sched_add(eng, s);
    eng->metrics.now.n_preempted++;
    atomic_fetch_add_explicit(&s->req->n_preempted, 1, memory_order_relaxed);
    return n;
}

/* ---- Forks of one prompt ---- */

/* Choice 0 computes the prompt up to its last token; then the others share its blocks, and each computes that last
 * token itself, under its own law. A fork that finds no place waits, and finds the prompt in the prefix cache. */
static int32_t fork_point(const struct seq *s)
{
    return s->req->n_prompt - 1;
}

static bool leads_forks(const struct seq *s)
{
    return s->choice == 0 && s->req->n_run > 1 && s->req->seq[1].state == SEQ_IDLE;
}

static void fork_choices(struct engine *eng, struct seq *leader)
{
    for (int32_t i = 1; i < leader->req->n_run; i++) {
        struct seq *s = &leader->req->seq[i];
        if (s->state != SEQ_IDLE)
            continue;
        if (has_places(eng, s)) {
            seq_fork(&eng->target, &leader->kv, &s->kv);
            sched_run(eng, s);
        } else {
            sched_add(eng, s);
        }
    }
}

static void fork_ready(struct engine *eng)
{
    for (struct seq *s = eng->running.head; s; s = s->next)
        if (leads_forks(s) && s->kv.n_computed >= fork_point(s))
            fork_choices(eng, s);
}

/* ---- Rows ---- */

/* Rows the sequence could use now. 0 also when its client reads too slowly: it pauses until there is room for what a
 * step may say. */
static int32_t rows_wanted(const struct seq *s)
{
    if (!request_has_room(s->req, 2 * s->req->p.n))
        return 0;
    if (leads_forks(s))
        return fork_point(s) - s->kv.n_computed;
    return s->strategy->want(s);
}

/* Gives `s` up to `want` rows, preempting lower ranks for blocks. False: `s` itself had to be preempted. */
static bool grant(struct engine *eng, struct seq *s, int32_t want, int32_t *budget)
{
    int32_t n = want <= *budget ? want : s->strategy->whole && s->strategy->whole(s) ? 0 : *budget;
    while (!seq_reserve(&eng->target, &s->kv, n)) {
        *budget += preempt(eng, eng->running.tail);
        if (s->state != SEQ_RUNNING)
            return false;
    }
    s->n_want = n;
    *budget -= n;
    return true;
}

/* What takes its rows whole cannot be served in shares. */
static bool is_decoding(const struct seq *s)
{
    return s->kv.n_computed >= s->req->n_prompt || (s->strategy->whole && s->strategy->whole(s));
}

static void grant_decoding(struct engine *eng, int32_t *budget)
{
    for (struct seq *s = eng->running.head, *next; s && *budget > 0; s = next) {
        int32_t want = s->n_want ? 0 : rows_wanted(s);
        if (want > 0 && is_decoding(s) && !grant(eng, s, want, budget))
            return;     /* it or its gang was the last in rank */
        next = s->next; /* read after granting: a preempted one is no longer in the list */
    }
}

/* ---- Prompts ---- */

/* Streams pause no longer than PAUSE of their usual steps for a prompt; a step that has only prompts is no longer than
 * it need be for its rows to be cheap. */
enum { LEAST_BESIDE = 16, LEAST_ALONE = 64 };
static const double PAUSE = 2, SLACK = 1.1;

static int32_t prompt_rows(const struct engine *eng, int32_t n_decoding, int32_t budget)
{
    const struct step_cost *c = &eng->target.cost;
    int32_t n = n_decoding ? cost_rows_within(c, n_decoding, PAUSE, budget) : cost_rows_efficient(c, SLACK, budget),
            least = n_decoding ? LEAST_BESIDE : LEAST_ALONE;
    n = n > least ? n : least;
    return n < budget ? n : budget;
}

static bool others_behind(const struct engine *eng, const struct seq *s)
{
    if (eng->waiting.head)
        return true;
    for (s = s->next; s; s = s->next)
        if (!is_decoding(s) && rows_wanted(s) > 0)
            return true;
    return false;
}

/* A first share for each: half of what is left, so that a short prompt behind a long one need not wait for all of it. */
static void grant_prompts(struct engine *eng, int32_t *budget)
{
    for (struct seq *s = eng->running.head, *next; s && *budget > 0; s = next) {
        int32_t want = s->n_want ? 0 : rows_wanted(s);
        if (want > 0 && !is_decoding(s)) {
            int32_t share = others_behind(eng, s) ? (*budget + 1) / 2 : *budget, rest = *budget - share;
            bool runs = grant(eng, s, want, &share);
            *budget = rest + share;
            if (!runs)
                return;
        }
        next = s->next;
    }
}

/* What is left over after everybody had a share; on blocks that are there. */
static void extend_prompts(struct engine *eng, int32_t *budget)
{
    for (struct seq *s = eng->running.head; s && *budget > 0; s = s->next) {
        int32_t more = s->n_want && !is_decoding(s) ? rows_wanted(s) - s->n_want : 0;
        more = more < *budget ? more : *budget;
        if (more > 0 && seq_reserve(&eng->target, &s->kv, s->n_want + more)) {
            s->n_want += more;
            *budget -= more;
        }
    }
}

/* A waiting sequence starts only on blocks that are there: it never preempts. */
static bool admit(struct engine *eng, struct seq *s, int32_t *budget)
{
    seq_match_prefix(&eng->target, s, &s->kv);
    int32_t n_matched = s->kv.n_computed,
            want = leads_forks(s) ? fork_point(s) - s->kv.n_computed : s->strategy->want(s);
    int32_t most = s->next ? (*budget + 1) / 2 : *budget;
    want = want > most ? most : want > 0 ? want : 0;
    if (!seq_reserve(&eng->target, &s->kv, want)) {
        seq_release(eng, s);
        return false;
    }
    list_remove(&eng->waiting, s);
    sched_run(eng, s);
    s->n_want = want;
    *budget -= want;
    struct request *r = s->req;
    eng->metrics.now.n_cache_query_tokens += (uint64_t)seq_n_tok(s);
    eng->metrics.now.n_cache_hit_tokens += (uint64_t)n_matched;
    if (atomic_load_explicit(&r->queued_ns, memory_order_relaxed) == 0) { /* the request's first start */
        int64_t waited = eng->now_ns - r->submit_ns;
        atomic_store_explicit(&r->queued_ns, waited > 0 ? waited : 1, memory_order_relaxed);
        atomic_store_explicit(&r->n_cached, n_matched, memory_order_relaxed);
        atomic_fetch_sub_explicit(&eng->n_queued, 1, memory_order_relaxed);
        hist_add(&eng->metrics.now.queue_s, (double)waited * 1e-9);
    }
    return true;
}

static void admit_waiting(struct engine *eng, int32_t *budget)
{
    for (struct seq *s = eng->waiting.head, *next; s && *budget > 0 && has_places(eng, s); s = next) {
        next = s->next;
        if (request_has_room(s->req, 2 * s->req->p.n) && !admit(eng, s, budget))
            return; /* in order: a small request behind must not starve a large one */
    }
}

int32_t sched_pick(struct engine *eng)
{
    int32_t cap = eng->opt.max_batch_tokens, budget = cap;
    uint64_t n_preempted = eng->metrics.now.n_preempted;
    for (struct seq *s = eng->running.head; s; s = s->next)
        s->n_want = 0;
    fork_ready(eng);
    for (struct seq *s = eng->running.head; s; s = s->next)
        if (s->gang && s->gang->leader == s)
            gang_join(eng, s->gang);
    grant_decoding(eng, &budget);
    int32_t prompts = prompt_rows(eng, cap - budget, budget), rest = budget - prompts;
    grant_prompts(eng, &prompts);
    if (n_preempted == eng->metrics.now.n_preempted) /* what was just preempted must not come straight back */
        admit_waiting(eng, &prompts);
    extend_prompts(eng, &prompts);
    return cap - rest - prompts;
}
