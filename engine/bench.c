#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine_impl.h"
#include "mem.h"
#include "roof.h"
#include "wake.h"

static const double ROOF_S = 0.02; /* of a reading of the roof */

struct samples {
    double seconds[BENCH_MAX_REPEAT], roof[BENCH_MAX_REPEAT], share[BENCH_MAX_REPEAT];
};

struct bench { /* owner: engine_bench */
    struct engine *eng;
    const struct bench_want *want;
    struct roof *roof;
    struct bench_report *out;
    void (*tell)(const struct bench_row *);
    struct samples sample[BENCH_MAX_ROW]; /* of out->row */
    size_t weight_bytes;
    int32_t *block; /* [n_seq][blocks_per_seq] */
    int32_t blocks_per_seq;
};

/* ---- Plans ---- */

/* n tokens of a sequence behind ctx of them; the last n_draw are drawn from. */
static int add_chain(struct bench *b, int32_t seq, int32_t ctx, int32_t n, int32_t n_draw)
{
    struct lane *lane = &b->eng->target;
    struct law greedy = {.temperature = 0, .top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1};
    struct span s = {.seq = seq,
                     .ctx_len = ctx,
                     .n_chain = n,
                     .n_counted = n,
                     .group = -1,
                     .law = plan_law(&lane->plan, &greedy, NULL, 0, NULL, 0),
                     .layer1 = (int16_t)lane->env.n_layer};
    int32_t row0 = lane->plan.n.n_row;
    if (s.law < 0 || plan_span(&lane->plan, &s) < 0)
        return -ERR_NOMEM;
    for (int32_t i = 0; i < n; i++) {
        int32_t tok = (int32_t)((seq * 7919 + (ctx + i) * INT64_C(104729)) % lane->env.n_vocab);
        if (plan_row(&lane->plan, tok, ctx + i, (int16_t)(i - 1), 0) < 0)
            return -ERR_NOMEM;
    }
    if (plan_blocks(&lane->plan, b->block + (size_t)seq * (size_t)b->blocks_per_seq, b->blocks_per_seq) < 0)
        return -ERR_NOMEM;
    for (int32_t i = n - n_draw; i < n; i++) {
        struct readout r = {.kind = READ_SAMPLE, .row = row0 + i, .bank = -1};
        if (plan_readout(&lane->plan, &r, NULL) < 0)
            return -ERR_NOMEM;
    }
    return 0;
}

static int run_plan(struct bench *b, int rc, struct err *e)
{
    struct lane *lane = &b->eng->target;
    if (rc)
        return err_set(e, -rc, "the step plan is too small");
    rc = plan_check(&lane->plan, &lane->env, e);
    if (!rc)
        rc = lane->ops->submit(lane->model, &lane->plan, e);
    return rc ? rc : lane->ops->wait(lane->model, &lane->result, e);
}

/* Computes positions from..to-1 of every sequence, in steps as large as the engine allows. */
static int fill(struct bench *b, int32_t n_seq, int32_t from, int32_t to, bool draw, struct err *e)
{
    int32_t most = b->eng->opt.max_batch_tokens;
    int rc = 0;
    for (int32_t s = 0; s < n_seq; s++)
        for (int32_t at = from; !rc && at < to; at += most) {
            int32_t n = to - at < most ? to - at : most;
            plan_reset(&b->eng->target.plan);
            rc = run_plan(b, add_chain(b, s, at, n, draw && at + n == to), e);
        }
    return rc;
}

static int run_steps(struct bench *b, const struct bench_row *row, struct err *e)
{
    int rc = 0;
    for (int32_t i = 0; !rc && i < row->n_step; i++) {
        plan_reset(&b->eng->target.plan);
        for (int32_t s = 0; !rc && s < row->n_seq; s++)
            rc = add_chain(b, s, row->depth + i, row->n_row, row->n_row);
        rc = run_plan(b, rc, e);
    }
    return rc;
}

static int run_row(struct bench *b, const struct bench_row *row, struct err *e)
{
    return row->work == BENCH_PREFILL ? fill(b, 1, 0, row->n_row, true, e) : run_steps(b, row, e);
}

/* ---- Measurements ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int32_t n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return v[n / 2];
}

static int sample(struct bench *b, int32_t i, int32_t at, struct err *e)
{
    const struct bench_row *row = &b->out->row[i];
    struct samples *s = &b->sample[i];
    bool reads = row->work != BENCH_PREFILL;
    double before = reads ? roof_read(b->roof, ROOF_S).median : 0;
    int64_t start = clock_ns();
    int rc = run_row(b, row, e);
    s->seconds[at] = (double)(clock_ns() - start) * 1e-9;
    double after = reads ? roof_read(b->roof, ROOF_S).median : 0;
    s->roof[at] = (before + after) / 2;
    s->share[at] = reads ? (double)b->weight_bytes * row->n_step / s->seconds[at] * 1e-9 / s->roof[at] : 0;
    return rc;
}

static void summarise(struct bench *b, int32_t i)
{
    struct bench_row *row = &b->out->row[i];
    struct samples *s = &b->sample[i];
    int32_t n = b->want->n_repeat;
    double seconds = median(s->seconds, n);
    row->spread = (s->seconds[n - 1] - s->seconds[0]) / seconds;
    row->tokens_per_s = (double)row->n_seq * row->n_row * row->n_step / seconds;
    row->step_ms = seconds / row->n_step * 1e3;
    row->weight_gb_per_s = row->work == BENCH_PREFILL ? 0 : (double)b->weight_bytes * row->n_step / seconds * 1e-9;
    row->read_gb_per_s = median(s->roof, n);
    row->bandwidth_share = median(s->share, n);
}

/* Rows from..n_row-1 in turns, after one of each that does not count. */
static int measure_from(struct bench *b, int32_t from, struct err *e)
{
    int rc = 0;
    for (int32_t i = from; !rc && i < b->out->n_row; i++)
        rc = run_row(b, &b->out->row[i], e);
    for (int32_t at = 0; at < b->want->n_repeat; at++)
        for (int32_t i = from; !rc && i < b->out->n_row; i++)
            rc = sample(b, i, at, e);
    for (int32_t i = from; !rc && i < b->out->n_row; i++) {
        summarise(b, i);
        if (b->tell)
            b->tell(&b->out->row[i]);
    }
    return rc;
}

static void add_row(struct bench_report *out, struct bench_row row)
{
    out->row[out->n_row++] = row;
}

static int run_prefills(struct bench *b, struct err *e)
{
    int32_t from = b->out->n_row;
    for (const int32_t *n = b->want->prefill; *n >= 0; n++)
        if (*n > 0)
            add_row(b->out, (struct bench_row){.work = BENCH_PREFILL, .n_seq = 1, .n_row = *n, .n_step = 1});
    return measure_from(b, from, e);
}

static int run_depth(struct bench *b, int32_t depth, struct err *e)
{
    int32_t from = b->out->n_row, widest = 1, n_step = b->want->n_step;
    for (const int32_t *n = b->want->batch; *n >= 0; n++) {
        add_row(b->out,
                (struct bench_row){.work = BENCH_DECODE, .n_seq = *n, .n_row = 1, .n_step = n_step, .depth = depth});
        widest = *n > widest ? *n : widest;
    }
    for (const int32_t *n = b->want->verify; *n >= 0; n++)
        add_row(b->out,
                (struct bench_row){.work = BENCH_VERIFY, .n_seq = 1, .n_row = *n, .n_step = n_step, .depth = depth});
    int rc = fill(b, widest, 0, depth, false, e);
    return rc ? rc : measure_from(b, from, e);
}

static int run_all(struct bench *b, struct err *e)
{
    struct backend_stats st;
    struct bench_report *out = b->out;
    b->eng->target.ops->stats(b->eng->target.model, &st);
    b->weight_bytes = st.weight_bytes;
    snprintf(out->model, sizeof out->model, "%s", b->eng->model.info.name);
    snprintf(out->device, sizeof out->device, "%s", st.device);
    int rc = roof_create(&b->roof, st.n_thread, e);
    if (!rc)
        rc = run_prefills(b, e);
    for (const int32_t *d = b->want->depth; !rc && *d >= 0; d++)
        rc = run_depth(b, *d, e);
    double roof[BENCH_MAX_ROW];
    int32_t n = 0;
    for (int32_t i = 0; !rc && i < out->n_row; i++)
        if (out->row[i].read_gb_per_s > 0)
            roof[n++] = out->row[i].read_gb_per_s;
    out->read_gb_per_s = n ? median(roof, n) : 0;
    return rc;
}

/* ---- Room for all of it ---- */

static int32_t largest(const int32_t *list, int32_t least)
{
    int32_t n = least;
    for (; *list >= 0; list++)
        n = *list > n ? *list : n;
    return n;
}

static int32_t length(const int32_t *list)
{
    int32_t n = 0;
    while (list[n] >= 0)
        n++;
    return n;
}

static int check_want(const struct bench_want *w, struct err *e)
{
    if (length(w->prefill) + length(w->depth) * (length(w->batch) + length(w->verify)) > BENCH_MAX_ROW)
        return err_set(e, ERR_INVALID, "more than %d measurements", BENCH_MAX_ROW);
    if (w->n_repeat < 1 || w->n_repeat > BENCH_MAX_REPEAT)
        return err_set(e, ERR_INVALID, "--repeat: 1 to %d", BENCH_MAX_REPEAT);
    if (largest(w->batch, 1) > 512 || largest(w->verify, 1) > 512)
        return err_set(e, ERR_INVALID, "--batch, --verify: at most 512");
    return 0;
}

int engine_bench(const struct engine_options *opt, const struct bench_want *want,
                 void (*tell)(const struct bench_row *row), struct bench_report *out, struct err *e)
{
    struct engine_options o = *opt;
    int32_t decoded = largest(want->depth, 0) + want->n_step + largest(want->verify, 1);
    int32_t deepest = largest(want->prefill, decoded), widest = largest(want->batch, 1);
    *out = (struct bench_report){0};
    o.no_drafts = true; /* nothing to time at start: it makes its own plans */
    o.n_ctx = deepest;
    o.max_seqs = widest;
    struct bench *b = mem_calloc(1, sizeof *b);
    int rc = b ? check_want(want, e) : err_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = engine_open(&o, &b->eng, e);
    if (rc)
        goto out;
    b->want = want;
    b->out = out;
    b->tell = tell;
    b->blocks_per_seq = (deepest + b->eng->limits.block_len - 1) / b->eng->limits.block_len;
    int64_t n_block = (int64_t)b->blocks_per_seq * widest;
    if (n_block > b->eng->limits.n_block)
        rc = err_set(e, ERR_NOMEM, "%d sequences of %d tokens do not fit the memory", widest, deepest);
    b->block = rc ? NULL : mem_alloc(sizeof *b->block * (size_t)n_block);
    if (!rc && !b->block)
        rc = err_set(e, ERR_NOMEM, "out of memory");
    for (int64_t i = 0; !rc && i < n_block; i++)
        b->block[i] = (int32_t)i;
    if (!rc)
        rc = run_all(b, e);
out:
    if (b) {
        roof_free(b->roof);
        mem_free(b->block);
        engine_close(b->eng);
        mem_free(b);
    }
    return rc;
}
