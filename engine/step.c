/* A step: take what came in, pick, plan, run, settle, tell. */
#include <stdio.h>

#include "gang.h"
#include "lane.h"
#include "log.h"
#include "strategy/strategy.h"

static void take_inbox(struct engine *eng)
{
    for (struct queue_node *n = queue_drain(&eng->inbox), *next; n; n = next) {
        next = n->next;
        struct request *r = container_of(n, struct request, inbox);
        r->order = eng->next_order++;
        r->prev = NULL;
        r->next = eng->requests;
        if (r->next)
            r->next->prev = r;
        eng->requests = r;
        sched_add(eng, &r->seq[0]);
    }
}

/* Requests that nobody waits for any more, or that ran out of time. */
static void sweep(struct engine *eng)
{
    bool stop = atomic_load_explicit(&eng->stop, memory_order_relaxed),
         failed = atomic_load_explicit(&eng->failed, memory_order_relaxed);
    for (struct request *r = eng->requests, *next; r; r = next) {
        next = r->next;
        if (failed) {
            if (!r->error[0]) /* it came in after the failure */
                snprintf(r->error, sizeof r->error, "the back end has failed");
            request_finish(eng, r, FINISH_ERROR);
        } else if (stop || atomic_load_explicit(&r->cancel, memory_order_relaxed))
            request_finish(eng, r, FINISH_CANCELED);
        else if (r->deadline_ns && eng->now_ns >= r->deadline_ns)
            request_finish(eng, r, FINISH_DEADLINE);
    }
}

static bool plan_sequence(struct engine *eng, struct seq *s)
{
    struct step_plan *p = &eng->target.plan;
    struct plan_limits before = p->n;
    if (!s->strategy->plan(eng, s, p))
        return true;
    p->n = before;
    s->span = -1;
    return false;
}

/* What does not fit this plan, not even without its drafts, waits for the next. */
static void plan_sequences(struct engine *eng)
{
    for (struct seq *s = eng->running.head; s; s = s->next) {
        s->span = -1;
        if (s->n_want == 0 || plan_sequence(eng, s) || s->rows.n == 0)
            continue;
        s->rows.n = 0;
        plan_sequence(eng, s);
    }
}

/* The device broke: everything in flight fails, and the process should end. */
static void fail_all(struct engine *eng, const struct err *e)
{
    log_line(LOG_ERROR, "the back end failed", "reason=\"%s\"", e->msg);
    for (struct request *r = eng->requests; r; r = r->next)
        snprintf(r->error, sizeof r->error, "%.200s", e->msg);
    atomic_store(&eng->failed, true);
    sweep(eng);
}

static void settle(struct engine *eng)
{
    struct lane *lane = &eng->target;
    for (struct seq *s = eng->running.head, *next; s; s = next) {
        next = s->next;
        if (s->span >= 0)
            s->strategy->settle(eng, s, &lane->plan, &lane->result);
    }
}

/* What gangs make of the step, or still have to say. */
static bool gather(struct engine *eng)
{
    bool any = false;
    for (struct request *r = eng->requests, *next; r; r = next) {
        next = r->next; /* read now: the request may be handed back */
        for (int32_t i = 0, n = r->n_gang; i < n; i++) {
            enum gang_news news = r->gang[i]->gather(eng, r->gang[i]);
            any |= news != GANG_IDLE;
            if (news == GANG_GONE)
                break;
        }
    }
    return any;
}

static void wake_sinks(struct engine *eng)
{
    for (int32_t i = 0; i < eng->n_woken; i++)
        eng->woken[i]->wake(eng->woken[i]);
    eng->n_woken = 0;
}

static void publish_metrics(struct engine *eng)
{
    struct engine_metrics *m = &eng->metrics.now;
    const struct kv_pool *pool = &eng->target.pool;
    m->n_running = eng->running.n;
    m->n_waiting = eng->waiting.n;
    m->n_block_cached = pool->cached.n;
    m->n_block_used = pool->n_block - pool->cached.n - pool->free.n;
    metrics_publish(&eng->metrics);
}

/* Picks, drafts, plans, runs, settles. False: nothing was left to compute. */
static bool compute(struct engine *eng, struct err *e)
{
    struct lane *lane = &eng->target;
    int32_t n_row = sched_pick(eng);
    if (drafting_pick(eng, n_row, eng->opt.max_batch_tokens - n_row, e))
        return false;
    plan_reset(&lane->plan);
    lane_plan_moves(lane);
    plan_sequences(eng);
    bool busy = lane->plan.n.n_row > 0;
    if (busy || lane->plan.n.n_kvop > 0) {
        if (lane_run(lane, &lane->cost, e))
            return false;
        eng->metrics.now.n_steps++;
        hist_add(&eng->metrics.now.step_rows, lane->plan.n.n_row);
        eng->now_ns = clock_ns();
        settle(eng);
        drafting_settle(eng);
    }
    return gather(eng) || busy;
}

bool engine_step(struct engine *eng)
{
    struct err e = {0};
    eng->now_ns = clock_ns();
    atomic_store_explicit(&eng->heartbeat_ns, eng->now_ns, memory_order_relaxed);
    take_inbox(eng);
    sweep(eng);
    bool busy = compute(eng, &e);
    if (e.code)
        fail_all(eng, &e);
    publish_metrics(eng);
    wake_sinks(eng);
    return busy;
}
