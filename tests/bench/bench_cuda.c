/* Times steps of a back end on a device through its contract, with random weights of a known model's shape:
 *
 *     bench_cuda [-m llama-8b|llama-1b|tiny] [-t BF16] [-l layers] [-b cuda] [-p ranks] [-D] [-w GB/s] [-f TFLOP/s] [-s
 * seconds a figure] JOB...
 *
 *     decode=BATCH:CONTEXT    a token of each of BATCH sequences
 *     verify=ROWS:CONTEXT     one sequence's last token and a tree of ROWS - 1 drafts, probed, beside a step of one row
 *     prefill=TOKENS          a prompt in one step
 *
 * -D: the batch-invariant mode. -w and -f: what the device was measured to do (tests/gpu.sh roof), to set figures
 * against. A step counts the weights it must read (all but the embedding table) and the KV cache of its contexts.
 * Contexts are not computed: the cache holds zeros. Where it is smaller than all contexts together, they share blocks
 * of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "rng.h"
#include "wake.h"

enum { BLOCK = 16, MAX_BATCH = 256, MAX_TREE_ROWS = 64, PROBED = 4, MAX_STEPS = 2000 };

static const struct shape {
    const char *name;
    int32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab;
} shapes[] = {
    {"llama-8b", 32, 4096, 14336, 32, 8, 128, 128256},
    {"llama-1b", 16, 2048, 8192, 32, 8, 64, 128256},
    {"tiny", 4, 256, 768, 4, 2, 64, 4096},
};

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

static void check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_cuda: %s\n", e->msg);
        exit(1);
    }
}

/* ---- The model ---- */

/* Enough different blocks, over and over. */
static void *random_blocks(int type, size_t bytes)
{
    const struct dtype_info *info = dtype_info(type);
    uint8_t *p = malloc(bytes);
    size_t unit = (size_t)info->block_bytes, n = bytes / unit < 65536 ? bytes / unit : 65536;
    float x[256];
    for (size_t i = 0; i < n; i++) {
        for (int j = 0; j < info->block_len; j++)
            x[j] = (float)((double)(rng_mix(i * 256 + (size_t)j) >> 11) * 0x1p-53 - 0.5) * 0.05f;
        dtype_from_f32(type, x, p + i * unit, info->block_len);
    }
    for (size_t done = n * unit; done < bytes; done *= 2)
        memcpy(p + done, p, bytes - done < done ? bytes - done : done);
    return p;
}

static void describe(struct bench *t, const struct shape *s)
{
    t->d = (struct model_desc){.n_vocab = s->n_vocab,
                               .n_embd = s->n_embd,
                               .n_layer = s->n_layer,
                               .n_head = s->n_head,
                               .n_head_kv = s->n_head_kv,
                               .head_dim = s->head_dim,
                               .n_ff = s->n_ff,
                               .n_ctx_train = 131072,
                               .rope_dim = s->head_dim,
                               .rms_eps = 1e-5f,
                               .attn_scale = 1 / sqrtf((float)s->head_dim),
                               .rope_mscale = 1,
                               .embd_scale = 1,
                               .residual_scale = 1,
                               .logit_scale = 1};
    for (int32_t i = 0; i < s->head_dim / 2; i++)
        t->d.rope_inv_freq[i] = powf(500000, -2.0f * (float)i / (float)s->head_dim);
}

/* All tensors are one buffer, which load copies. */
static void load_random(struct bench *t, int type)
{
    const struct model_desc *d = &t->d;
    int64_t n_q = d->n_head * d->head_dim, n_kv = d->n_head_kv * d->head_dim, n = d->n_embd, n_ff = d->n_ff;
    void *w = random_blocks(type, dtype_row_bytes(type, n) * (size_t)d->n_vocab);
    float *ones = malloc(sizeof *ones * (size_t)n);
    for (int64_t i = 0; i < n; i++)
        ones[i] = 1;
    struct layer_weights layer = {.attn_norm = {ones, DT_F32, 1, n},
                                  .ffn_norm = {ones, DT_F32, 1, n},
                                  .wq = {w, type, n_q, n},
                                  .wk = {w, type, n_kv, n},
                                  .wv = {w, type, n_kv, n},
                                  .wo = {w, type, n, n_q},
                                  .gate = {w, type, n_ff, n},
                                  .up = {w, type, n_ff, n},
                                  .down = {w, type, n, n_ff}};
    struct model_weights all = {.tok_embd = {w, type, d->n_vocab, n},
                                .out_norm = {ones, DT_F32, 1, n},
                                .out = {w, type, d->n_vocab, n},
                                .layer = malloc(sizeof layer * (size_t)d->n_layer)};
    for (int32_t l = 0; l < d->n_layer; l++)
        all.layer[l] = layer;
    struct err e = {0};
    double start = (double)clock_ns();
    check(t->ops->load(t->b, d, &all, NULL, NULL, &t->m, &e), &e);
    t->n_param = (double)d->n_layer * (double)(n * (2 * n_q + 2 * n_kv + 3 * n_ff)) + (double)(d->n_vocab * n);
    t->read_bytes = t->n_param / (double)n * (double)dtype_row_bytes(type, n);
    printf("load seconds=%.1f\n", ((double)clock_ns() - start) * 1e-9);
    free(w), free(ones), free(all.layer);
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
        check(t->ops->submit(t->m, &t->plan, &e), &e);
        check(t->ops->wait(t->m, &t->out, &e), &e);
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
    check(t->ops->kv_create(t->m, &kv, &e), &e);
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
    const struct shape *s = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(shapes[i].name, name))
            s = &shapes[i];
    int type = dtype_by_name(type_name), n_job = argc - optind;
    struct job *job = calloc((size_t)n_job + 1, sizeof *job);
    if (!s || type < 0 || !n_job)
        usage();
    for (int i = 0; i < n_job; i++)
        if (parse_job(argv[optind + i], &job[i]))
            usage();
    t.ops = backend_find(backend, &e);
    check(t.ops ? 0 : -ERR_NOTFOUND, &e);
    describe(&t, s);
    if (n_layer > 0)
        t.d.n_layer = n_layer;
    int64_t n_block;
    opt.limits = limits_of(job, n_job, s->n_vocab, &n_block);
    check(t.ops->open(&opt, &t.b, &e), &e);
    load_random(&t, type);
    make_pool(&t, n_block);
    check(plan_create(&t.plan, &opt.limits, &e), &e);
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
