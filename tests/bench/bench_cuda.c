/* Times steps of a back end on a device through its contract, with random weights of a known model's shape:
 *
 *     bench_cuda [-m llama-8b|llama-1b|qwen3-0.6b|tiny] [-t BF16] [-l layers] [-b cuda] [-p ranks] [-D] [-w GB/s] [-f
 * TFLOP/s] [-s seconds a figure] JOB...
 *
 *     decode=BATCH:CONTEXT    a token of each of BATCH sequences
 *     verify=ROWS:CONTEXT     one sequence's last token and a tree of ROWS - 1 drafts, probed, beside a step of one row
 *     prefill=TOKENS          a prompt in one step
 *
 * -D: the batch-invariant mode. -w and -f: what the device was measured to do (tests/gpu.sh roof), to set figures
 * against. A step counts the weights it must read (all but the embedding table) and the KV cache of its contexts.
 * Contexts are not computed: the cache holds zeros. Where it is smaller than all contexts together, they share blocks
 * of it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "random_model.h"
#include "rng.h"
#include "wake.h"

enum { BLOCK = 16, MAX_BATCH = 256, MAX_TREE_ROWS = 64, PROBED = 4, MAX_STEPS = 2000 };

struct bench {
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *m;
    struct model_desc d;
    struct step_plan plan;
    struct step_result out;
    int32_t n_block;
    double seconds, roof_bytes_s, roof_flop_s; /* 0: not known */
    double read_bytes, n_param;                /* of weights, for each step and each row */
};

struct job {
    enum { DECODE, VERIFY, PREFILL } kind;
    int32_t n, context;
};

/* What a step reads and computes with: the layers' matrices and the head. */
static void count_weights(struct bench *t, int type)
{
    const struct model_desc *d = &t->d;
    double n_q = d->n_head * d->head_dim, n_kv = d->n_head_kv * d->head_dim, n = d->n_embd;
    t->n_param = d->n_layer * n * (2 * n_q + 2 * n_kv + 3.0 * d->n_ff) + d->n_vocab * n;
    t->read_bytes = t->n_param / n * (double)dtype_row_bytes(type, d->n_embd);
}

/* ---- Plans ---- */

static void begin(struct bench *t)
{
    struct law greedy = {.top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1};
    plan_reset(&t->plan);
    plan_law(&t->plan, &greedy, NULL, 0, NULL, 0);
}

static int32_t any_token(const struct bench *t, int32_t seed)
{
    return (int32_t)(rng_mix((uint64_t)seed) % (uint64_t)t->d.n_vocab);
}

/* n_chain rows after a context, and a tree of n_tree: two branches a level. */
static void add_span(struct bench *t, int32_t seq, int32_t context, int32_t n_chain, int32_t n_tree)
{
    uint64_t vis[MAX_TREE_ROWS];
    int32_t depth[MAX_TREE_ROWS], n_bt = (context + n_chain + n_tree) / BLOCK + 1;
    plan_span(&t->plan, &(struct span){.seq = seq,
                                       .ctx_len = context,
                                       .n_chain = n_chain,
                                       .n_counted = n_chain,
                                       .group = -1,
                                       .layer1 = (int16_t)t->d.n_layer});
    int32_t row = 0;
    for (int32_t i = 0; i < n_chain; i++)
        row = plan_row(&t->plan, any_token(t, seq * 1000 + i), context + i, (int16_t)(i - 1), 0);
    for (int32_t i = 0; i < n_tree; i++) {
        int32_t up = i < 2 ? -1 : i - 2;
        vis[i] = (up < 0 ? 0 : vis[up]) | (uint64_t)1 << i;
        depth[i] = up < 0 ? 0 : depth[up] + 1;
        plan_row(&t->plan, any_token(t, i), context + n_chain + depth[i], (int16_t)(n_chain + up), vis[i]);
    }
    for (int32_t b = 0; b < n_bt; b++)
        plan_blocks(&t->plan, &(int32_t){(int32_t)(((int64_t)seq * n_bt + b) % t->n_block)}, 1);
    if (!n_tree)
        plan_readout(&t->plan, &(struct readout){.kind = READ_SAMPLE, .row = row, .bank = -1}, NULL);
    for (int32_t i = 0; n_tree && i <= n_tree; i++) {
        int32_t list[PROBED];
        for (int32_t k = 0; k < PROBED; k++)
            list[k] = (any_token(t, i) + k) % t->d.n_vocab;
        plan_readout(&t->plan, &(struct readout){.kind = READ_PROBE, .row = row + i, .n = PROBED, .bank = -1}, list);
    }
}

/* ---- Timing ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of the step. */
static double time_step(struct bench *t)
{
    static double took[MAX_STEPS];
    struct err e = {0};
    int n = -2; /* two to warm up */
    for (int64_t end = clock_ns() + (int64_t)(t->seconds * 1e9); n < 3 || (clock_ns() < end && n < MAX_STEPS); n++) {
        int64_t start = clock_ns();
        bench_check(t->ops->submit(t->m, &t->plan, &e), &e);
        bench_check(t->ops->wait(t->m, &t->out, &e), &e);
        if (n >= 0)
            took[n] = (double)(clock_ns() - start) * 1e-9;
    }
    qsort(took, (size_t)n, sizeof *took, by_size);
    return took[n / 2];
}

static void share(const char *name, double rate, double roof)
{
    if (roof > 0)
        printf(" %s=%.1f%%", name, 100 * rate / roof);
}

static double kv_token_bytes(const struct model_desc *d)
{
    return 2.0 * d->n_layer * d->n_head_kv * d->head_dim * 2; /* K and V, in bf16 */
}

static void run_decode(struct bench *t, const struct job *j)
{
    begin(t);
    for (int32_t s = 0; s < j->n; s++)
        add_span(t, s, j->context, 1, 0);
    double took = time_step(t), bytes = t->read_bytes + kv_token_bytes(&t->d) * j->n * (double)j->context;
    bool shares = (int64_t)j->n * (j->context / BLOCK + 1) > t->n_block;
    printf("decode batch=%d context=%d ms=%.3f tok_s=%.1f gb_s=%.1f", j->n, j->context, took * 1e3, j->n / took,
           bytes / took * 1e-9);
    share("of_bandwidth", bytes / took, t->roof_bytes_s);
    printf("%s\n", shares ? " blocks=shared" : "");
}

static void run_verify(struct bench *t, const struct job *j)
{
    begin(t);
    add_span(t, 0, j->context, 1, 0);
    double one = time_step(t);
    begin(t);
    add_span(t, 0, j->context, 1, j->n - 1);
    double tree = time_step(t);
    printf("verify rows=%d context=%d ms=%.3f ms_one_row=%.3f ratio=%.3f\n", j->n, j->context, tree * 1e3, one * 1e3,
           tree / one);
}

static void run_prefill(struct bench *t, const struct job *j)
{
    begin(t);
    add_span(t, 0, 0, j->n, 0);
    double head = (double)t->d.n_vocab * t->d.n_embd; /* of the last row alone */
    double attention = 2.0 * t->d.n_layer * t->d.n_head * t->d.head_dim * (double)j->n * j->n; /* half of the square */
    double took = time_step(t), flop = 2 * (t->n_param - head) * j->n + attention;
    printf("prefill tokens=%d ms=%.2f tok_s=%.0f tflop_s=%.1f", j->n, took * 1e3, j->n / took, flop / took * 1e-12);
    share("of_matrix_rate", flop / took, t->roof_flop_s);
    printf("\n");
}

/* ---- The command ---- */

static int parse_job(const char *text, struct job *j)
{
    *j = (struct job){.context = 0};
    if (sscanf(text, "decode=%d:%d", &j->n, &j->context) == 2)
        j->kind = DECODE;
    else if (sscanf(text, "verify=%d:%d", &j->n, &j->context) == 2)
        j->kind = VERIFY;
    else if (sscanf(text, "prefill=%d", &j->n) == 1)
        j->kind = PREFILL;
    else
        return -1;
    int32_t most = j->kind == DECODE ? MAX_BATCH : j->kind == VERIFY ? MAX_TREE_ROWS : 1 << 16;
    return j->n < 1 || j->n > most || j->context < 0 || j->context > 1 << 20 ? -1 : 0;
}

/* What the largest job needs. */
static struct plan_limits limits_of(const struct job *job, int n_job, int32_t n_vocab, int64_t *n_block)
{
    struct plan_limits n = {
        .n_span = MAX_BATCH, .n_row = MAX_BATCH, .n_law = 1, .n_readout = MAX_BATCH, .n_vocab = n_vocab};
    *n_block = 0;
    for (const struct job *j = job; j < job + n_job; j++) {
        int64_t n_seq = j->kind == DECODE ? j->n : 1;
        int64_t blocks = n_seq * ((j->context + (j->kind == DECODE ? 1 : j->n)) / BLOCK + 1);
        n.n_row = j->n > n.n_row ? j->n : n.n_row;
        *n_block = blocks > *n_block ? blocks : *n_block;
    }
    n.n_bt = (int32_t)*n_block + MAX_BATCH;
    n.n_list = MAX_TREE_ROWS * PROBED;
    n.n_out_f = n.n_out_i = MAX_BATCH * (PROBED + 8);
    return n;
}

static void make_pool(struct bench *t, int64_t n_block)
{
    struct err e = {0};
    struct kv_config kv = {.block_len = BLOCK, .k_type = DT_BF16, .v_type = DT_BF16, .n_block = 1};
    size_t one = t->ops->kv_bytes(t->m, &kv);
    kv.n_block = 2;
    size_t block = t->ops->kv_bytes(t->m, &kv) - one;
    if (t->ops->kv_available) {
        size_t left = t->ops->kv_available(t->m);
        int64_t fits = left > one ? (int64_t)((left - one) / block) * 9 / 10 : 0;
        n_block = fits < n_block ? fits : n_block;
    }
    t->n_block = kv.n_block = (int32_t)n_block;
    bench_check(t->ops->kv_create(t->m, &kv, &e), &e);
}

static void usage(void)
{
    fprintf(
        stderr,
        "bench_cuda [-m MODEL] [-t TYPE] [-l LAYERS] [-b BACKEND] [-p RANKS] [-D] [-w GB/s] [-f TFLOP/s] [-s SECONDS] "
        "decode=BATCH:CONTEXT|verify=ROWS:CONTEXT|prefill=TOKENS ...\n");
    exit(1);
}

int main(int argc, char **argv)
{
    struct bench t = {.seconds = 1};
    struct backend_options opt = {0};
    struct err e = {0};
    const char *name = "llama-8b", *type_name = "BF16", *backend = "cuda";
    int32_t n_layer = 0; /* the shape's */
    for (int c; (c = getopt(argc, argv, "m:t:l:b:p:Dw:f:s:")) != -1;) {
        if (c == 'm')
            name = optarg;
        else if (c == 't')
            type_name = optarg;
        else if (c == 'l')
            n_layer = atoi(optarg);
        else if (c == 'b')
            backend = optarg;
        else if (c == 'p')
            opt.tensor_parallel = atoi(optarg);
        else if (c == 'D')
            opt.deterministic = true;
        else if (c == 'w')
            t.roof_bytes_s = atof(optarg) * 1e9;
        else if (c == 'f')
            t.roof_flop_s = atof(optarg) * 1e12;
        else if (c == 's')
            t.seconds = atof(optarg);
        else
            usage();
    }
    const struct model_shape *known = model_shape_find(name);
    int type = dtype_by_name(type_name), n_job = argc - optind;
    struct job *job = calloc((size_t)n_job + 1, sizeof *job);
    if (!known || type < 0 || !n_job)
        usage();
    for (int i = 0; i < n_job; i++)
        if (parse_job(argv[optind + i], &job[i]))
            usage();
    t.ops = backend_find(backend, &e);
    bench_check(t.ops ? 0 : -ERR_NOTFOUND, &e);
    struct model_shape shape = *known;
    if (n_layer > 0)
        shape.n_layer = n_layer;
    model_shape_describe(&shape, &t.d);
    count_weights(&t, type);
    int64_t n_block;
    opt.limits = limits_of(job, n_job, shape.n_vocab, &n_block);
    bench_check(t.ops->open(&opt, &t.b, &e), &e);
    t.m = random_model_load(t.ops, t.b, &shape, type);
    make_pool(&t, n_block);
    bench_check(plan_create(&t.plan, &opt.limits, &e), &e);
    t.out.f = malloc((size_t)opt.limits.n_out_f * sizeof(float));
    t.out.i = malloc((size_t)opt.limits.n_out_i * sizeof(int32_t));
    struct backend_stats stats;
    t.ops->stats(t.m, &stats);
    printf("device=\"%s\" model=%s type=%s deterministic=%d weights_mb=%.0f kv_tokens=%lld\n", stats.device, name,
           type_name, opt.deterministic, (double)stats.weight_bytes * 1e-6, (long long)t.n_block * BLOCK);
    for (int i = 0; i < n_job; i++) {
        if (job[i].kind == DECODE)
            run_decode(&t, &job[i]);
        else if (job[i].kind == VERIFY)
            run_verify(&t, &job[i]);
        else
            run_prefill(&t, &job[i]);
        fflush(stdout);
    }
    t.ops->unload(t.m);
    t.ops->close(t.b);
    plan_free(&t.plan);
    free(t.out.f), free(t.out.i), free(job);
    return 0;
}
