#include "bench.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine_impl.h"
#include "mem.h"

enum { MAX_REPEAT = 32, DECODE_STEPS = 16, READ_BYTES = 256 << 20, READ_THREADS = 64, LINE = 8, AHEAD = 256 }; /* LINE, AHEAD: in 8-byte words */

/* ---- The machine's read bandwidth ---- */

struct reader {
    const uint64_t *at;
    size_t n;
    uint64_t sum;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    uint64_t s[LINE] = {0};
    for (size_t i = 0; i + LINE <= r->n; i += LINE) {
        __builtin_prefetch(r->at + i + AHEAD);
        for (int k = 0; k < LINE; k++)
            s[k] += r->at[i + (size_t)k];
    }
    for (int k = 0; k < LINE; k++)
        r->sum += s[k];
    return NULL;
}

/* Best of three passes over a buffer larger than any cache, on as many threads as the back end uses. */
static double read_bandwidth(const uint64_t *buf, int32_t n_thread)
{
    double best = 0;
    for (int pass = 0; pass < 3; pass++) {
        pthread_t th[READ_THREADS];
        struct reader r[READ_THREADS];
        int64_t start = clock_ns();
        size_t words = READ_BYTES / sizeof *buf / (size_t)n_thread;
        for (int32_t i = 0; i < n_thread; i++) {
            r[i] = (struct reader){.at = buf + words * (size_t)i, .n = words};
            pthread_create(&th[i], NULL, read_all, &r[i]);
        }
        for (int32_t i = 0; i < n_thread; i++)
            pthread_join(th[i], NULL);
        double gbps = READ_BYTES / (double)(clock_ns() - start);
        best = gbps > best ? gbps : best;
    }
    return best;
}

/* ---- Plans ---- */

struct bench {
    struct engine *eng;
    int32_t *block; /* [n_seq][blocks a sequence] */
    int32_t blocks_per_seq;
};

static int add_chain(struct bench *b, int32_t seq, int32_t ctx, int32_t n, bool draw)
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
    for (int32_t i = 0; i < n; i++)
        if (plan_row(&lane->plan, (seq * 7919 + (ctx + i) * 104729) % lane->env.n_vocab, ctx + i, (int16_t)(i - 1), 0) <
            0)
            return -ERR_NOMEM;
    if (plan_blocks(&lane->plan, b->block + (size_t)seq * (size_t)b->blocks_per_seq, b->blocks_per_seq) < 0)
        return -ERR_NOMEM;
    struct readout r = {.kind = READ_SAMPLE, .row = row0 + n - 1, .bank = -1};
    return draw && plan_readout(&lane->plan, &r, NULL) < 0 ? -ERR_NOMEM : 0;
}

static int run_plan(struct bench *b, struct err *e)
{
    struct lane *lane = &b->eng->target;
    int rc = plan_check(&lane->plan, &lane->env, e);
    if (!rc)
        rc = lane->ops->submit(lane->model, &lane->plan, e);
    return rc ? rc : lane->ops->wait(lane->model, &lane->result, e);
}

/* Computes positions from..to-1 of every sequence, in steps as large as the engine allows. */
static int fill(struct bench *b, int32_t n_seq, int32_t from, int32_t to, bool draw, struct err *e)
{
    int32_t most = b->eng->opt.max_batch_tokens;
    for (int32_t s = 0; s < n_seq; s++)
        for (int32_t at = from; at < to; at += most) {
            int32_t n = to - at < most ? to - at : most;
            plan_reset(&b->eng->target.plan);
            int rc = add_chain(b, s, at, n, draw && at + n == to);
            rc = rc ? err_set(e, -rc, "the step plan is too small") : run_plan(b, e);
            if (rc)
                return rc;
        }
    return 0;
}

static int decode(struct bench *b, int32_t n_seq, int32_t depth, struct err *e)
{
    for (int32_t i = 0; i < DECODE_STEPS; i++) {
        int rc = 0;
        plan_reset(&b->eng->target.plan);
        for (int32_t s = 0; !rc && s < n_seq; s++)
            rc = add_chain(b, s, depth + i, 1, true);
        rc = rc ? err_set(e, -rc, "the step plan is too small") : run_plan(b, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- Measurements ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void summarise(double *v, int32_t n, double *median, double *spread)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    *median = v[n / 2];
    *spread = *median > 0 ? (v[n - 1] - v[0]) / *median : 0;
}

static int measure(struct bench *b, struct bench_row *row, int32_t n_repeat, const uint64_t *buf, int32_t n_thread,
                   size_t weight_bytes, double *read_gbps, struct err *e)
{
    double rate[MAX_REPEAT], roof[MAX_REPEAT], share[MAX_REPEAT], ignored;
    int rc = row->prefill ? fill(b, 1, 0, row->n_token, true, e) : fill(b, row->n_seq, 0, row->depth, false, e);
    if (!rc && !row->prefill)
        rc = decode(b, row->n_seq, row->depth, e); /* warm */
    for (int32_t i = 0; !rc && i < n_repeat; i++) {
        double before = row->prefill ? 0 : read_bandwidth(buf, n_thread);
        int64_t start = clock_ns();
        rc = row->prefill ? fill(b, 1, 0, row->n_token, true, e) : decode(b, row->n_seq, row->depth, e);
        double seconds = (double)(clock_ns() - start) * 1e-9;
        double after = row->prefill ? 0 : read_bandwidth(buf, n_thread);
        rate[i] = (double)row->n_token * row->n_seq / seconds;
        roof[i] = (before + after) / 2;
        share[i] = row->prefill ? 0 : (double)weight_bytes * row->n_token / seconds * 1e-9 / roof[i];
    }
    if (rc)
        return rc;
    summarise(rate, n_repeat, &row->tokens_per_s, &row->spread);
    summarise(roof, n_repeat, read_gbps, &ignored);
    summarise(share, n_repeat, &row->bandwidth_share, &ignored);
    row->weight_gb_per_s = row->prefill ? 0 : row->tokens_per_s / row->n_seq * (double)weight_bytes * 1e-9;
    return 0;
}

static int run_rows(struct bench *b, int32_t n_prefill, const int32_t *depth, const int32_t *batch, int32_t n_repeat,
                    void (*tell)(const struct bench_row *), struct bench_report *out, struct err *e)
{
    struct backend_stats st;
    b->eng->target.ops->stats(b->eng->target.model, &st);
    int32_t n_thread = st.n_thread < READ_THREADS ? st.n_thread : READ_THREADS;
    uint64_t *buf = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buf == MAP_FAILED)
        return err_set(e, ERR_NOMEM, "out of memory");
    madvise(buf, READ_BYTES, MADV_HUGEPAGE); /* as the weights: page walks are not what is measured */
    memset(buf, 1, READ_BYTES);
    snprintf(out->model, sizeof out->model, "%s", b->eng->model.info.name);
    snprintf(out->device, sizeof out->device, "%s", st.device);

    int rc = 0;
    double roof;
    struct bench_row *row = out->row;
    if (n_prefill > 0) {
        *row = (struct bench_row){.prefill = true, .n_seq = 1, .n_token = n_prefill};
        rc = measure(b, row, n_repeat, buf, n_thread, st.weight_bytes, &roof, e);
        if (!rc && tell)
            tell(row);
        row++;
    }
    for (const int32_t *d = depth; !rc && *d; d++)
        for (const int32_t *n = batch; !rc && *n && row < out->row + 64; n++) {
            *row = (struct bench_row){.n_seq = *n, .depth = *d, .n_token = DECODE_STEPS};
            rc = measure(b, row, n_repeat, buf, n_thread, st.weight_bytes, &roof, e);
            if (!rc && tell)
                tell(row);
            out->read_gb_per_s = rc ? 0 : roof;
            row++;
        }
    out->n_row = (int32_t)(row - out->row);
    munmap(buf, READ_BYTES);
    return rc;
}

int engine_bench(const struct engine_options *opt, int32_t n_prefill, const int32_t *depth, const int32_t *batch,
                 int32_t n_repeat, void (*tell)(const struct bench_row *row), struct bench_report *out, struct err *e)
{
    struct engine_options o = *opt;
    o.no_drafts = true; /* nothing to time at start: it makes its own plans */
    struct bench b = {0};
    int32_t deepest = n_prefill, widest = 1;
    *out = (struct bench_report){0};
    for (const int32_t *d = depth; *d; d++)
        deepest = *d + DECODE_STEPS > deepest ? *d + DECODE_STEPS : deepest;
    for (const int32_t *n = batch; *n; n++)
        widest = *n > widest ? *n : widest;
    o.n_ctx = deepest;
    o.max_seqs = widest;
    if (n_repeat < 1 || n_repeat > MAX_REPEAT)
        return err_set(e, ERR_INVALID, "--repeat: 1 to %d", MAX_REPEAT);
    int rc = engine_open(&o, &b.eng, e);
    if (rc)
        return rc;
    b.blocks_per_seq = (deepest + b.eng->limits.block_len - 1) / b.eng->limits.block_len;
    if ((int64_t)b.blocks_per_seq * widest > b.eng->limits.n_block)
        rc = err_set(e, ERR_NOMEM, "%d sequences of %d tokens do not fit the memory", widest, deepest);
    b.block = rc ? NULL : mem_alloc(sizeof *b.block * (size_t)(b.blocks_per_seq * widest));
    for (int32_t i = 0; b.block && i < b.blocks_per_seq * widest; i++)
        b.block[i] = i;
    if (!rc)
        rc = b.block ? run_rows(&b, n_prefill, depth, batch, n_repeat, tell, out, e)
                     : err_set(e, ERR_NOMEM, "out of memory");
    mem_free(b.block);
    engine_close(b.eng);
    return rc;
}
