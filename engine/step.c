/* A step: take what came in, pick, plan, run, settle, tell. */
#include <stdio.h>

#include "engine_impl.h"
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

static void plan_moves(struct lane *lane)
{
    for (int32_t i = 0; i < lane->n_move; i++)
        BUG_ON(plan_kvop(&lane->plan, lane->move[i].src, lane->move[i].dst, lane->move[i].n) < 0);
    lane->n_move = 0;
}

/* What does not fit this plan waits for the next. */
static void plan_sequences(struct engine *eng)
{
    struct step_plan *p = &eng->target.plan;
    for (struct seq *s = eng->running.head; s; s = s->next) {
        struct plan_limits before = p->n;
        s->span = -1;
        if (s->n_want > 0 && s->strategy->plan(eng, s, p)) {
            p->n = before;
            s->span = -1;
        }
    }
}

static const struct step_plan *plan_in_flight;

static void dump_plan(void)
{
    if (plan_in_flight)
        plan_dump(plan_in_flight, stderr);
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

static bool run(struct engine *eng)
{
    struct lane *lane = &eng->target;
    struct err e = {0};
#ifndef NDEBUG
    if (plan_check(&lane->plan, &lane->env, &e)) {
        log_line(LOG_ERROR, "malformed plan", "reason=\"%s\"", e.msg);
        BUG_ON("plan_check refused the engine's own plan");
    }
#endif
    if (lane->ops->submit(lane->model, &lane->plan, &e) || lane->ops->wait(lane->model, &lane->result, &e)) {
        fail_all(eng, &e);
        return false;
    }
    return true;
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

bool engine_step(struct engine *eng)
{
    struct lane *lane = &eng->target;
    eng->now_ns = clock_ns();
    atomic_store_explicit(&eng->heartbeat_ns, eng->now_ns, memory_order_relaxed);
    take_inbox(eng);
    sweep(eng);

    int32_t n_row = sched_pick(eng);
    plan_reset(&lane->plan);
    plan_moves(lane);
    plan_sequences(eng);
    bool busy = lane->plan.n.n_row > 0;
    if (busy || lane->plan.n.n_kvop > 0) {
        plan_in_flight = &lane->plan;
        int64_t began = clock_ns();
        if (run(eng)) {
            eng->metrics.now.n_steps++;
            if (lane->plan.n.n_readout >= n_row) /* prompt rows cost less: they are not what a draft costs */
                cost_observe(&eng->cost, n_row, (double)(clock_ns() - began) * 1e-9);
            hist_add(&eng->metrics.now.step_rows, n_row);
            eng->now_ns = clock_ns();
            settle(eng);
        }
        plan_in_flight = NULL;
    }
    publish_metrics(eng);
    wake_sinks(eng);
    return busy;
}

void engine_dump_on_bug(void)
{
    bug_set_hook(dump_plan);
}
