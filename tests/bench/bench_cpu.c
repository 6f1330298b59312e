/* Times the whole forward pass of a back end through its contract, with random weights of a known model's shape:
 *
 *     bench_cpu [-m llama-1b|qwen3-0.6b|llama-8b|tiny] [-t Q8_0] [-n threads] [-c context] [-b back end] [-s seconds a
 * figure]
 *
 * Decoding at batch 1, 4, 8 and 16, then a prompt of 512 tokens. Weights read a second are set against the read
 * bandwidth measured between the timings, since both vary on a shared machine. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "random_model.h"
#include "rng.h"
#include "roof.h"
#include "wake.h"

enum { BLOCK = 16, MAX_BATCH = 16, PROMPT = 512 };

struct bench {
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *m;
    struct step_plan plan;
    struct step_result out;
    struct roof *roof;
    int32_t context, n_layer, n_vocab;
    double seconds, bandwidth;
    size_t weight_bytes;
};

static double now(void)
{
    return (double)clock_ns() * 1e-9;
}

/* ---- Steps ---- */

static void chain(struct bench *t, int32_t seq, int32_t ctx_len, int32_t n)
{
    int32_t n_block = (t->context + PROMPT) / BLOCK + 1;
    plan_span(
        &t->plan,
        &(struct span){
            .seq = seq, .ctx_len = ctx_len, .n_chain = n, .n_counted = n, .group = -1, .layer1 = (int16_t)t->n_layer});
    int32_t row = 0;
    for (int32_t i = 0; i < n; i++)
        row = plan_row(&t->plan, (int32_t)(rng_mix((uint64_t)(seq * 1000 + i)) % (uint64_t)t->n_vocab), ctx_len + i,
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
    bench_check(t->ops->submit(t->m, &t->plan, &e), &e);
    bench_check(t->ops->wait(t->m, &t->out, &e), &e);
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
    const struct model_shape *s = model_shape_find(name);
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
    bench_check(t.ops->open(&(struct backend_options){.n_thread = n_thread, .limits = limits}, &t.b, &e), &e);
    t.n_layer = s->n_layer;
    t.n_vocab = s->n_vocab;
    t.m = random_model_load(t.ops, t.b, s, type);
    struct kv_config kv = {.block_len = BLOCK, .n_block = n_block, .k_type = DT_F16, .v_type = DT_F16};
    bench_check(t.ops->kv_create(t.m, &kv, &e), &e);
    bench_check(plan_create(&t.plan, &limits, &e), &e);
    struct backend_stats stats;
    t.ops->stats(t.m, &stats);
    t.weight_bytes = stats.weight_bytes;
    printf("%s %s, %s, context %d, weights %.0f MB\n", name, type_name, stats.device, t.context,
           (double)stats.weight_bytes * 1e-6);
    bench_check(roof_create(&t.roof, n_thread, &e), &e);
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
