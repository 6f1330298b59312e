#include "lane.h"

#include <stdio.h>

#include "log.h"
#include "wake.h"

/* ---- Steps ---- */

void lane_plan_moves(struct lane *lane)
{
    for (int32_t i = 0; i < lane->n_move; i++)
        BUG_ON(plan_kvop(&lane->plan, lane->move[i].src, lane->move[i].dst, lane->move[i].n) < 0);
    lane->n_move = 0;
    lane->n_plan++;
}

static const struct step_plan *plan_in_flight;

static void dump_plan(void)
{
    if (plan_in_flight)
        plan_dump(plan_in_flight, stderr);
}

void lane_dump_on_bug(void)
{
    bug_set_hook(dump_plan);
}

static int submit_and_wait(struct lane *lane, double *seconds, struct err *e)
{
    int64_t from = clock_ns();
    plan_in_flight = &lane->plan;
#ifndef NDEBUG
    if (plan_check(&lane->plan, &lane->env, e)) {
        log_line(LOG_ERROR, "malformed plan", "reason=\"%s\"", e->msg);
        BUG_ON("plan_check refused the engine's own plan");
    }
#endif
    int rc = lane->ops->submit(lane->model, &lane->plan, e);
    if (!rc)
        rc = lane->ops->wait(lane->model, &lane->result, e);
    plan_in_flight = NULL;
    *seconds = (double)(clock_ns() - from) * 1e-9;
    return rc;
}

int lane_run(struct lane *lane, struct step_cost *cost, struct err *e)
{
    const struct plan_limits *n = &lane->plan.n;
    double seconds;
    int rc = submit_and_wait(lane, &seconds, e);
    if (!rc && n->n_readout >= n->n_row) /* prompt rows cost less: they are not what a draft costs */
        cost_observe(cost, n->n_row, seconds);
    return rc;
}

/* ---- What they cost ---- */

enum { TIME_NS = 60 * 1000 * 1000, DRAFT_ROWS = 32, MAX_ROW = 1024 };
static const double SLOW_S = 0.03, LONG_S = 0.2;

/* Times a step of n rows of one sequence, each with a draw, as verifying needs it. */
static int time_step(struct lane *lane, int32_t n_layer, int32_t n, double *seconds, struct err *e)
{
    struct step_plan *p = &lane->plan;
    int32_t n_block = (n + lane->env.block_len - 1) / lane->env.block_len, block[MAX_ROW];
    struct law law = {.top_p = 1, .typical_p = 1, .repetition = 1, .top_h_n = 100};
    plan_reset(p);
    struct span span = {.n_chain = n, .n_counted = n, .group = -1, .layer1 = (int16_t)n_layer};
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
    return submit_and_wait(lane, seconds, e);
}

/* Where steps are long, as a large model's on a CPU, each is timed once: all of this is time that a start takes. Two
 * points say the least about drafts. */
static int time_few(struct lane *lane, int32_t n_layer, double first, struct step_cost *cost, int32_t most,
                    struct err *e)
{
    double s = first;
    int rc = 0;
    cost_set(cost, 1, s);
    for (int32_t n = 4; !rc && n <= most && n <= DRAFT_ROWS && (cost->n_point < 2 || s <= LONG_S); n *= 4) {
        rc = time_step(lane, n_layer, n, &s, e);
        if (!rc)
            cost_set(cost, n, s);
    }
    return rc;
}

/* Powers of two, the better of two runs each, until the time is used up; then powers of four, once, up to where drafts
 * end or a step is long. */
int lane_calibrate(struct lane *lane, int32_t n_layer, struct step_cost *cost, int32_t max_row, struct err *e)
{
    int32_t slots = lane->env.n_block * lane->env.block_len, most = max_row < slots ? max_row : slots;
    double s = 0, again = 0;
    most = most < MAX_ROW ? most : MAX_ROW;
    cost_init(cost);
    int rc = time_step(lane, n_layer, 1, &s, e); /* warms up */
    if (!rc && s > SLOW_S)                       /* or the machine was busy, or the weights were not in memory yet */
        rc = time_step(lane, n_layer, 1, &again, e);
    s = s > SLOW_S && again < s ? again : s;
    if (rc || s > SLOW_S)
        return rc ? rc : time_few(lane, n_layer, s, cost, most, e);
    int64_t from = clock_ns();
    bool late = false;
    for (int32_t n = 1; !rc && n <= most; n *= late ? 4 : 2) {
        if (late && cost->n_point > 1 && (n > DRAFT_ROWS || s > LONG_S))
            break;
        rc = time_step(lane, n_layer, n, &s, e);
        late = clock_ns() - from > TIME_NS;
        if (!rc && !late)
            rc = time_step(lane, n_layer, n, &again, e);
        if (!rc)
            cost_set(cost, n, !late && again < s ? again : s);
    }
    return rc;
}
