/* What a step of the cuda back end costs the host: making lists, and the calls, on the fake runtime with kernels and
 * copies left out. The shape is an 8B model's on an H100; there are no weights. What the real runtime adds to each call
 * is not in it.
 *
 *     bench_cuda_host [steps] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../simt/fake_runtime.h"
#include "cuda.h"

enum { N_VOCAB = 128256, BLOCK = 16, N_BLOCK = 1 << 18, MAX_ROW = 256, MAX_SPAN = 256, N_SM = 132, MAX_LAYER = 32 };

static const struct model_desc shape = {.n_vocab = N_VOCAB,
                                        .n_embd = 4096,
                                        .n_layer = MAX_LAYER,
                                        .n_head = 32,
                                        .n_head_kv = 8,
                                        .head_dim = 128,
                                        .n_ff = 14336,
                                        .rope_dim = 128,
                                        .rms_eps = 1e-5f,
                                        .attn_scale = 0.088f,
                                        .rope_mscale = 1,
                                        .embd_scale = 1,
                                        .residual_scale = 1,
                                        .logit_scale = 1};

static char no_weights[16]; /* what weights point to: nothing reads them */
static struct cuda_layer layers[MAX_LAYER];
static struct cuda_ffn networks[MAX_LAYER];
static struct backend device;
static struct bmodel model;
static struct step_plan plan;
static struct step_result result;

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "%s: %s\n", what, e->msg);
    exit(1);
}

static void weight(struct gemm_weight *w, int n_matrix, int32_t n_out, int32_t n_in)
{
    if (gemm_plan(GEMM_BF16, n_matrix, n_out, n_in, w))
        abort();
    w->data = no_weights;
}

static void model_make(const struct plan_limits *limits)
{
    struct err e = {0};
    struct kv_config kv = {.block_len = BLOCK, .n_block = N_BLOCK, .k_type = DT_BF16, .v_type = DT_BF16};
    int32_t n_q = shape.n_head * shape.head_dim, n_kv = shape.n_head_kv * shape.head_dim;
    fake_runtime_reset();
    fake_runtime_skip();
    fake_faults.total_bytes = (size_t)1 << 46;
    device = (struct backend){.api = &fake_runtime, .n_rank = 1, .n_block = 2 * N_SM};
    fake_runtime.stream_create(&device.stream);
    model = (struct bmodel){.b = &device, .d = shape, .limits = *limits, .layer = layers, .table = no_weights};
    model.table_type = DT_BF16;
    model.shard = (struct shard){.n_rank = 1, .n_vocab = N_VOCAB};
    weight(&model.out, 1, N_VOCAB, shape.n_embd);
    for (struct cuda_layer *l = layers; l < layers + shape.n_layer; l++) {
        weight(&l->wq, 1, n_q, shape.n_embd);
        weight(&l->wk, 1, n_kv, shape.n_embd);
        weight(&l->wv, 1, n_kv, shape.n_embd);
        weight(&l->wo, 1, shape.n_embd, n_q);
        l->n_ffn = 1;
        l->ffn = &networks[l - layers];
        weight(&l->ffn->gate_up, 2, shape.n_ff, shape.n_embd);
        weight(&l->ffn->down, 1, shape.n_embd, shape.n_ff);
    }
    if (cuda_kv_create(&model, &kv, &e))
        die("kv_create", &e);
    cuda_graphs_create(&model);
}

/* n_span sequences that each decode a token, with a law of their own. */
static void decode_step(int n_span, int32_t ctx_len)
{
    static int32_t bt[N_BLOCK];
    int32_t n_bt = ctx_len / BLOCK + 1;
    plan_reset(&plan);
    for (int i = 0; i < n_span; i++) {
        struct law l = {.temperature = 1, .top_p = 0.95f, .typical_p = 1, .repetition = 1, .noise_key = (uint64_t)i};
        struct span s = {
            .seq = i, .ctx_len = ctx_len, .n_chain = 1, .group = -1, .law = i, .layer1 = (int16_t)shape.n_layer};
        for (int32_t b = 0; b < n_bt; b++)
            bt[b] = (int32_t)(((int64_t)i * n_bt + b) * 7919 % N_BLOCK);
        plan_law(&plan, &l, NULL, 0, NULL, 0);
        plan_span(&plan, &s);
        int row = plan_row(&plan, i, ctx_len, PARENT_CTX, 0);
        plan_blocks(&plan, bt, n_bt);
        plan_readout(&plan, &(struct readout){.kind = READ_SAMPLE, .row = row, .bank = -1}, NULL);
    }
}

/* ---- Timing ---- */

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* other processes do not count */
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static void part_slots(void)
{
    kv_row_slots(&plan, BLOCK, model.lists.slot);
}

static void part_readouts(void)
{
    readout_work_make(&plan, model.pool.map, &model.lists.read);
}

static void part_attention(void)
{
    struct attn_shape s = cuda_attn_shape(&model, 0);
    attn_work_make(&plan, 0, &s, device.n_block, 0, model.lists.attn);
}

static void part_tables(void)
{
    memcpy(model.lists.bt, plan.bt, (size_t)plan.n.n_bt * sizeof *plan.bt);
}

static void part_submit(void)
{
    struct err e = {0};
    if (cuda_submit(&model, &plan, &e))
        die("submit", &e);
    model.plan = NULL;
}

/* Median of `n` runs. */
static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_us(void (*part)(void), int n)
{
    double *t = malloc(sizeof *t * (size_t)n);
    for (int i = 0; i < n; i++) {
        double at = now_us();
        part();
        t[i] = now_us() - at;
    }
    qsort(t, (size_t)n, sizeof *t, by_size);
    double median = t[n / 2];
    free(t);
    return median;
}

static void bench(int n_span, int32_t ctx_len, int n)
{
    decode_step(n_span, ctx_len);
    model.graphs.off = true;
    double plain = time_us(part_submit, n);
    long n_plain = fake_runtime_calls().n_kernel / n;
    model.graphs.off = false;
    double graph = time_us(part_submit, n);
    struct fake_calls c = fake_runtime_calls();
    const struct attn_work *w = model.lists.attn;
    size_t upload = (size_t)((const char *)(w->item + w->n_item) - model.pool.host_upload);
    printf("%5d %6d %8.1f %8ld %8.1f %5ld+%ld+%ld %9.1f %8.1f %8.1f %8.1f %9.1f\n", n_span, ctx_len, plain, n_plain,
           graph, c.n_graph / n, c.n_kernel / n, c.n_copy / n, time_us(part_tables, n), time_us(part_slots, n),
           time_us(part_readouts, n), time_us(part_attention, n), (double)upload / 1024);
}

int main(int argc, char **argv)
{
    static const int spans[] = {1, 8, 64, 256};
    static const int32_t contexts[] = {1000, 32000};
    int n = argc > 1 ? atoi(argv[1]) : 300;
    struct plan_limits limits = {.n_span = MAX_SPAN,
                                 .n_row = 2048,
                                 .n_held = 256,
                                 .n_mix = 256,
                                 .n_part = 1024,
                                 .n_kvop = 64,
                                 .n_law = MAX_SPAN,
                                 .n_law_tok = 4096,
                                 .n_ban = 256,
                                 .n_mask = 16,
                                 .n_readout = 1024,
                                 .n_list = 4096,
                                 .n_bt = MAX_SPAN * 2048,
                                 .n_out_f = 65536,
                                 .n_out_i = 65536,
                                 .n_vocab = N_VOCAB};
    struct err e = {0};
    if (plan_create(&plan, &limits, &e))
        die("plan", &e);
    result = (struct step_result){calloc(65536, sizeof(float)), calloc(65536, sizeof(int32_t))};
    model_make(&limits);
    printf("microseconds of the host's processor; calls of a graph step: graphs + kernels + copies\n");
    printf("batch context    plain kernels    graph    calls    tables    slots readouts attention upload KiB\n");
    for (int c = 0; c < 2; c++)
        for (int s = 0; s < 4; s++)
            bench(spans[s], contexts[c], n);
    cuda_pool_free(&model);
    fake_runtime.stream_destroy(device.stream);
    plan_free(&plan);
    free(result.f);
    free(result.i);
    return 0;
}
