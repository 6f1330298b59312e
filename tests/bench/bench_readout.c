/* Times the readouts of logits alone, one thread, one row of a vocabulary of Llama 3's size:
 *
 *     bench_readout [-v vocabulary] [-s seconds a figure]
 *
 * Microseconds of the best of many, and the same as GB/s of logits read once. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "readout.h"
#include "rng.h"
#include "wake.h"

enum { N_LIST = 8, MAX_F = 1024 };

static const struct law plain = {.top_p = 1, .typical_p = 1, .repetition = 1, .top_h_n = 100};

static struct law with(float temperature, float top_p, int32_t top_k)
{
    struct law l = plain;
    l.temperature = temperature;
    l.top_p = top_p;
    l.top_k = top_k;
    return l;
}

struct bench {
    struct step_plan plan;
    struct readout_ws ws;
    float *logits;
    int32_t n_vocab;
    double seconds;
};

static void check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_readout: %s\n", e->msg);
        exit(1);
    }
}

static void measure(struct bench *b, const char *name, struct law law, struct readout r)
{
    static float f[MAX_F];
    static int32_t i[MAX_F], list[N_LIST];
    struct step_result out = {f, i};
    struct step_plan *p = &b->plan;
    for (int32_t k = 0; k < N_LIST; k++)
        list[k] = k * (b->n_vocab / N_LIST);
    plan_reset(p);
    struct span span = {.n_chain = 1, .n_counted = 1, .group = -1, .layer1 = 1};
    span.law = plan_law(p, &law, NULL, 0, NULL, 0);
    plan_span(p, &span);
    plan_row(p, 1, 0, PARENT_CTX, 0);
    plan_readout(p, &r, r.kind == READ_PROBE || r.kind == READ_LOGPROB ? list : NULL);
    double best = 1e9;
    for (int64_t end = clock_ns() + (int64_t)(b->seconds * 1e9), from = clock_ns(); from < end; from = clock_ns()) {
        readout_begin(&b->ws);
        readout_logits(p, &p->span[0], &p->readout[0], b->logits, &b->ws, &out);
        double s = (double)(clock_ns() - from) * 1e-9;
        best = s < best ? s : best;
    }
    printf("%-34s %8.1f us  %6.2f GB/s\n", name, best * 1e6, (double)b->n_vocab * 4e-9 / best);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench b = {.n_vocab = 128256, .seconds = 0.3};
    for (int opt; (opt = getopt(argc, argv, "v:s:")) != -1;) {
        if (opt == 'v')
            b.n_vocab = atoi(optarg);
        else if (opt == 's')
            b.seconds = atof(optarg);
        else
            return 2;
    }
    struct err e = {0};
    struct plan_limits cap = {.n_span = 1, .n_row = 1, .n_law = 1, .n_readout = 1, .n_list = N_LIST, .n_bt = 1};
    cap.n_out_f = cap.n_out_i = MAX_F;
    cap.n_vocab = b.n_vocab;
    check(plan_create(&b.plan, &cap, &e), &e);
    check(readout_ws_create(&b.ws, b.n_vocab, 64, &e), &e);
    b.logits = malloc(sizeof *b.logits * (size_t)b.n_vocab);
    if (!b.logits || b.n_vocab < N_LIST)
        return 2;
    for (int32_t t = 0; t < b.n_vocab; t++) /* as of a sure model: a few far above a bell of width 2 */
        b.logits[t] =
            2 *
                (rng_unit((uint32_t)rng_mix((uint64_t)t)) + rng_unit((uint32_t)rng_mix((uint64_t)t + 1000000)) +
                 rng_unit((uint32_t)rng_mix((uint64_t)t + 2000000)) - 1.5f) *
                2 +
            (t % 16001 == 7 ? 12.0f : 0);

    struct readout sample = {.kind = READ_SAMPLE, .bank = -1}, told = {.kind = READ_SAMPLE, .n = 1, .bank = -1};
    struct readout top = {.kind = READ_TOPK, .raw = 1, .n = 20, .bank = -1};
    struct readout probe = {.kind = READ_PROBE, .n = N_LIST, .bank = -1};
    struct readout scored = {.kind = READ_LOGPROB, .raw = 1, .n = 1, .bank = -1};
    measure(&b, "SAMPLE, temperature 0", plain, sample);
    measure(&b, "SAMPLE, temperature 1", with(1, 1, 0), sample);
    measure(&b, "SAMPLE, 0.7, top_p 0.9", with(0.7f, 0.9f, 0), sample);
    measure(&b, "SAMPLE, 0.7, top_k 40", with(0.7f, 1, 40), sample);
    measure(&b, "SAMPLE with its log-probability", with(1, 1, 0), told);
    measure(&b, "TOPK 20, raw", plain, top);
    measure(&b, "LOGPROB of 1, raw", plain, scored);
    measure(&b, "PROBE of 8, temperature 0", plain, probe);
    measure(&b, "PROBE of 8, temperature 0.7", with(0.7f, 1, 0), probe);
    measure(&b, "PROBE of 8, 0.7, top_p 0.9", with(0.7f, 0.9f, 0), probe);
    readout_ws_free(&b.ws);
    plan_free(&b.plan);
    free(b.logits);
    return 0;
}
