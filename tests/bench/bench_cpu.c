/* Times the whole forward pass of a back end through its contract, with random weights of a known model's shape:
 *
 *     bench_cpu [-m llama-1b|qwen3-0.6b] [-t Q8_0] [-n threads] [-c context] [-b back end] [-s seconds a figure]
 *
 * Decoding at batch 1, 4, 8 and 16, then a prompt of 512 tokens. Weights read a second are set against the read
 * bandwidth measured between the timings, since both vary on a shared machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"
#include "rng.h"
#include "roof.h"
#include "wake.h"

enum { BLOCK = 16, MAX_BATCH = 16, PROMPT = 512 };

static const struct shape {
    const char *name;
    int32_t n_layer, n_embd, n_ff, n_head, n_head_kv, head_dim, n_vocab;
    uint32_t flags;
} shapes[] = {
    {"llama-1b", 16, 2048, 8192, 32, 8, 64, 128256, 0},
    {"qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, 151936, MODEL_NEOX_ROPE | MODEL_QK_NORM},
    {"tiny", 4, 256, 768, 4, 2, 64, 4096, 0},
};

struct bench {
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *m;
    struct model_desc d;
    struct step_plan plan;
    struct step_result out;
    struct roof *roof;
    int32_t context;
    double seconds, bandwidth;
    size_t weight_bytes;
};

static void check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_cpu: %s\n", e->msg);
        exit(1);
    }
}

static double now(void)
{
    return (double)clock_ns() * 1e-9;
}

/* ---- A model of random blocks: all tensors of a type share one buffer, which load copies ---- */

static void *random_blocks(int type, size_t bytes)
{
    const struct dtype_info *info = dtype_info(type);
    uint8_t *p = malloc(bytes);
    size_t unit = (size_t)info->block_bytes, n = bytes / unit < 4096 ? bytes / unit : 4096;
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

static struct tensor tensor(const void *data, int type, int64_t n_row, int64_t n_col)
{
    return (struct tensor){.data = data, .type = type, .n_row = n_row, .n_col = n_col};
}

static void load_random(struct bench *t, const struct shape *s, int type)
{
    struct model_desc *d = &t->d;
    *d = (struct model_desc){.n_vocab = s->n_vocab,
                             .n_embd = s->n_embd,
                             .n_layer = s->n_layer,
                             .n_head = s->n_head,
                             .n_head_kv = s->n_head_kv,
                             .head_dim = s->head_dim,
                             .n_ff = s->n_ff,
                             .n_ctx_train = 8192,
                             .rope_dim = s->head_dim,
                             .flags = s->flags,
                             .rms_eps = 1e-5f,
                             .attn_scale = 1 / sqrtf((float)s->head_dim),
                             .rope_mscale = 1,
                             .embd_scale = 1,
                             .residual_scale = 1,
                             .logit_scale = 1};
    for (int32_t i = 0; i < s->head_dim / 2; i++)
        d->rope_inv_freq[i] = powf(500000, -2.0f * (float)i / (float)s->head_dim);
    int32_t n_q = s->n_head * s->head_dim, n_kv = s->n_head_kv * s->head_dim;
    void *w = random_blocks(type, dtype_row_bytes(type, s->n_embd) * (size_t)s->n_vocab);
    float *ones = malloc(sizeof *ones * (size_t)s->n_embd);
    for (int32_t i = 0; i < s->n_embd; i++)
        ones[i] = 1;
    struct layer_weights layer = {.attn_norm = tensor(ones, DT_F32, 1, s->n_embd),
                                  .ffn_norm = tensor(ones, DT_F32, 1, s->n_embd),
                                  .wq = tensor(w, type, n_q, s->n_embd),
                                  .wk = tensor(w, type, n_kv, s->n_embd),
                                  .wv = tensor(w, type, n_kv, s->n_embd),
                                  .wo = tensor(w, type, s->n_embd, n_q),
                                  .gate = tensor(w, type, s->n_ff, s->n_embd),
                                  .up = tensor(w, type, s->n_ff, s->n_embd),
                                  .down = tensor(w, type, s->n_embd, s->n_ff)};
    if (s->flags & MODEL_QK_NORM)
        layer.q_norm = layer.k_norm = tensor(ones, DT_F32, 1, s->head_dim);
    struct model_weights mw = {.tok_embd = tensor(w, type, s->n_vocab, s->n_embd),
                               .out_norm = tensor(ones, DT_F32, 1, s->n_embd),
                               .layer = malloc(sizeof layer * (size_t)s->n_layer)};
    for (int32_t l = 0; l < s->n_layer; l++)
        mw.layer[l] = layer;
    struct err e = {0};
    double start = now();
    check(t->ops->load(t->b, d, &mw, NULL, NULL, &t->m, &e), &e);
    printf("load: %.2f s\n", now() - start);
    free(w);
    free(ones);
    free(mw.layer);
}

/* ---- Steps ---- */

static void chain(struct bench *t, int32_t seq, int32_t ctx_len, int32_t n)
{
    int32_t n_block = (t->context + PROMPT) / BLOCK + 1;
    plan_span(&t->plan, &(struct span){.seq = seq,
                                       .ctx_len = ctx_len,
                                       .n_chain = n,
                                       .n_counted = n,
                                       .group = -1,
                                       .layer1 = (int16_t)t->d.n_layer});
    int32_t row = 0;
    for (int32_t i = 0; i < n; i++)
        row = plan_row(&t->plan, (int32_t)(rng_mix((uint64_t)(seq * 1000 + i)) % (uint64_t)t->d.n_vocab), ctx_len + i,
                       (int16_t)(i - 1), 0);
    for (int32_t b = 0; b < n_block; b++)
        plan_blocks(&t->plan, &(int32_t){seq * n_block + b}, 1);
    plan_readout(&t->plan, &(struct readout){.kind = READ_SAMPLE, .row = row, .bank = -1}, NULL);
}

static void begin(struct bench *t)
{
    plan_reset(&t->plan);
    struct law greedy = {.top_p = 1, .typical_p = 1, .top_h_n = 100, .repetition = 1};
    plan_law(&t->plan, &greedy, NULL, 0, NULL, 0);
}

static double step(struct bench *t)
{
    struct err e = {0};
    double start = now();
    check(t->ops->submit(t->m, &t->plan, &e), &e);
    check(t->ops->wait(t->m, &t->out, &e), &e);
    return now() - start;
}

/* The median step, and the best bandwidth seen meanwhile. */
static double median_step(struct bench *t)
{
    static double took[4096];
    double end = now() + t->seconds;
    int n = 0;
    t->bandwidth = 0;
    step(t);
    while (n < 3 || (now() < end && n < 4096)) {
        if (n % 4 == 0)
            t->bandwidth = fmax(t->bandwidth, 1e9 * roof_read(t->roof, 0.02).best);
        took[n++] = step(t);
    }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && took[j] < took[j - 1]; j--) {
            double swap = took[j];
            took[j] = took[j - 1];
            took[j - 1] = swap;
        }
    printf("%8.2f ms (best %.2f)", took[n / 2] * 1e3, took[0] * 1e3);
    return took[n / 2];
}

static void report(struct bench *t, double took, int32_t n_tok)
{
    double rate = (double)t->weight_bytes / took;
    printf("  %8.1f tok/s  %6.1f GB/s, %3.0f %% of %.1f\n", n_tok / took, rate * 1e-9, 100 * rate / t->bandwidth,
           t->bandwidth * 1e-9);
    fflush(stdout);
}

static void run(struct bench *t)
{
    for (int32_t s = 0; s < MAX_BATCH && t->context; s++)
        for (int32_t at = 0; at < t->context; at += PROMPT) {
            begin(t);
            chain(t, s, at, t->context - at < PROMPT ? t->context - at : PROMPT);
            step(t);
        }
    for (int32_t batch = 1; batch <= MAX_BATCH; batch *= batch == 1 ? 4 : 2) {
        begin(t);
        for (int32_t s = 0; s < batch; s++)
            chain(t, s, t->context, 1);
        printf("decode %2d  ", batch);
        report(t, median_step(t), batch);
    }
    begin(t);
    chain(t, 0, 0, PROMPT);
    printf("prompt %d", PROMPT);
    report(t, median_step(t), PROMPT);
}

int main(int argc, char **argv)
{
    struct bench t = {.context = 64, .seconds = 3};
    struct err e = {0};
    const char *name = "llama-1b", *type_name = "Q8_0", *backend = "cpu";
    int n_thread = 0, opt;
    while ((opt = getopt(argc, argv, "m:t:n:c:b:s:")) != -1) {
        if (opt == 'm')
            name = optarg;
        else if (opt == 't')
            type_name = optarg;
        else if (opt == 'b')
            backend = optarg;
        else if (opt == 'n')
            n_thread = atoi(optarg);
        else if (opt == 'c')
            t.context = atoi(optarg);
        else if (opt == 's')
            t.seconds = atof(optarg);
        else
            return 1;
    }
    const struct shape *s = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(shapes[i].name, name))
            s = &shapes[i];
    int type = dtype_by_name(type_name);
    t.ops = backend_find(backend, &e);
    if (!s || type < 0 || !t.ops) {
        fprintf(stderr, "bench_cpu: model %s, type %s or back end %s is not known\n", name, type_name, backend);
        return 1;
    }
    int32_t n_block = MAX_BATCH * ((t.context + PROMPT) / BLOCK + 1);
    struct plan_limits limits = {.n_span = MAX_BATCH,
                                 .n_row = PROMPT,
                                 .n_law = 1,
                                 .n_readout = MAX_BATCH,
                                 .n_bt = n_block,
                                 .n_out_f = 64,
                                 .n_out_i = 64,
                                 .n_vocab = s->n_vocab};
    check(t.ops->open(&(struct backend_options){.n_thread = n_thread, .limits = limits}, &t.b, &e), &e);
    load_random(&t, s, type);
    struct kv_config kv = {.block_len = BLOCK, .n_block = n_block, .k_type = DT_F16, .v_type = DT_F16};
    check(t.ops->kv_create(t.m, &kv, &e), &e);
    check(plan_create(&t.plan, &limits, &e), &e);
    struct backend_stats stats;
    t.ops->stats(t.m, &stats);
    t.weight_bytes = stats.weight_bytes;
    printf("%s %s, %s, context %d, weights %.0f MB\n", name, type_name, stats.device, t.context,
           (double)stats.weight_bytes * 1e-6);
    check(roof_create(&t.roof, n_thread, &e), &e);
    t.out.f = malloc(64 * sizeof(float));
    t.out.i = malloc(64 * sizeof(int32_t));
    run(&t);
    roof_free(t.roof);
    t.ops->unload(t.m);
    t.ops->close(t.b);
    plan_free(&t.plan);
    free(t.out.f);
    free(t.out.i);
    return 0;
}
