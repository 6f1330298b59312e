/* Mean Kullback-Leibler divergence between two model files of one vocabulary over text: what a quantisation costs; or,
 * with one file twice, between two back ends: what a faster one costs.
 *
 *     build/release/tests/bench/kl REFERENCE.gguf OTHER.gguf TEXT [BACKEND [OTHER'S BACKEND]]
 *
 * Prints the mean over positions of KL(p_reference || p_other) in nats, the largest, how often the top token agrees,
 * and the mean log-probability of the text's next token by either. The text is cut into windows of 256 tokens. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "model/model.h"

enum { WINDOW = 256, BLOCK_LEN = 16, MAX_TEXT = 1 << 20 };

struct runner {
    struct model m;
    const struct backend_ops *ops;
    struct backend *b;
    struct bmodel *bm;
    struct step_plan plan;
    struct step_result out;
};

static void die(const struct err *e)
{
    fprintf(stderr, "kl: %s\n", e->msg);
    exit(1);
}

static void runner_open(struct runner *r, const char *path, const char *backend)
{
    struct err e = {0};
    if (model_open(path, &r->m, &e) || model_make_weights(&r->m, 0, &e) || !(r->ops = backend_find(backend, &e)))
        die(&e);
    int32_t v = r->m.desc.n_vocab, n_list = (v + PLAN_MAX_LIST - 1) / PLAN_MAX_LIST;
    struct plan_limits l = {.n_span = 1,
                            .n_row = WINDOW,
                            .n_kvop = 1,
                            .n_readout = WINDOW * n_list,
                            .n_list = WINDOW * v,
                            .n_bt = WINDOW / BLOCK_LEN,
                            .n_out_f = WINDOW * v,
                            .n_out_i = WINDOW * v,
                            .n_vocab = v};
    struct backend_options opt = {.limits = l};
    struct kv_config kv = {.block_len = BLOCK_LEN, .n_block = WINDOW / BLOCK_LEN, .k_type = DT_F32, .v_type = DT_F32};
    r->out.f = malloc(sizeof(float) * (size_t)l.n_out_f);
    r->out.i = malloc(sizeof(int32_t) * (size_t)l.n_out_i);
    if (r->ops->open(&opt, &r->b, &e) || r->ops->load(r->b, &r->m.desc, &r->m.w, NULL, NULL, &r->bm, &e) ||
        r->ops->kv_create(r->bm, &kv, &e) || plan_create(&r->plan, &l, &e))
        die(&e);
}

/* Log-probabilities of every token at every position: f[position * n_vocab + token]. */
static void runner_step(struct runner *r, const int32_t *tok, int32_t n)
{
    struct err e = {0};
    int32_t bt[WINDOW / BLOCK_LEN], list[PLAN_MAX_LIST], v = r->m.desc.n_vocab;
    for (int32_t i = 0; i < WINDOW / BLOCK_LEN; i++)
        bt[i] = i;
    plan_reset(&r->plan);
    plan_span(
        &r->plan,
        &(struct span){.n_chain = n, .n_counted = n, .group = -1, .law = -1, .layer1 = (int16_t)r->m.desc.n_layer});
    for (int32_t i = 0; i < n; i++)
        plan_row(&r->plan, tok[i], i, (int16_t)(i - 1), 0);
    plan_blocks(&r->plan, bt, WINDOW / BLOCK_LEN);
    for (int32_t i = 0; i < n; i++)
        for (int32_t at = 0; at < v; at += PLAN_MAX_LIST) {
            int32_t k = v - at < PLAN_MAX_LIST ? v - at : PLAN_MAX_LIST;
            for (int32_t j = 0; j < k; j++)
                list[j] = at + j;
            plan_readout(&r->plan, &(struct readout){.kind = READ_LOGPROB, .raw = 1, .row = i, .n = k, .bank = -1},
                         list);
        }
    if (r->ops->submit(r->bm, &r->plan, &e) || r->ops->wait(r->bm, &r->out, &e))
        die(&e);
}

int main(int argc, char **argv)
{
    static struct runner a, b;
    static char text[MAX_TEXT];
    if (argc < 4) {
        fprintf(stderr, "usage: kl REFERENCE.gguf OTHER.gguf TEXT [BACKEND [OTHER'S BACKEND]]\n");
        return 2;
    }
    const char *backend = argc > 4 ? argv[4] : "ref";
    runner_open(&a, argv[1], backend);
    runner_open(&b, argv[2], argc > 5 ? argv[5] : backend);
    FILE *f = fopen(argv[3], "rb");
    size_t n_text = f ? fread(text, 1, sizeof text, f) : 0, n_tok = 0;
    int32_t *tok = malloc(sizeof *tok * (n_text + 1)), v = a.m.desc.n_vocab;
    struct err e = {0};
    struct tok_scratch *scratch = tok_scratch_new(a.m.tok);
    if (!n_text || v != b.m.desc.n_vocab ||
        tok_encode(a.m.tok, text, n_text, TOK_PARSE_SPECIAL, tok, n_text + 1, &n_tok, scratch, &e)) {
        fprintf(stderr, "kl: cannot read %s, or the vocabularies differ\n", argv[3]);
        return 1;
    }
    double sum = 0, worst = 0, next_p = 0, next_q = 0;
    size_t n_pos = 0, n_same = 0, n_next = 0;
    for (size_t at = 0; at + 2 < n_tok; at += WINDOW) {
        int32_t n = n_tok - at < WINDOW ? (int32_t)(n_tok - at) : WINDOW;
        runner_step(&a, tok + at, n);
        runner_step(&b, tok + at, n);
        for (int32_t i = 0; i < n; i++) {
            const float *p = a.out.f + (size_t)i * (size_t)v, *q = b.out.f + (size_t)i * (size_t)v;
            double kl = 0;
            int32_t top_p = 0, top_q = 0;
            for (int32_t t = 0; t < v; t++) {
                kl += exp(p[t]) * ((double)p[t] - q[t]);
                top_p = p[t] > p[top_p] ? t : top_p;
                top_q = q[t] > q[top_q] ? t : top_q;
            }
            sum += kl;
            worst = fmax(worst, kl);
            n_same += top_p == top_q;
            n_pos++;
            if (i + 1 < n) {
                next_p += p[tok[at + (size_t)i + 1]];
                next_q += q[tok[at + (size_t)i + 1]];
                n_next++;
            }
        }
    }
    printf("mean KL %.3e nats, largest %.3e, top token equal %.2f%%, %zu positions\n", sum / (double)n_pos, worst,
           100.0 * (double)n_same / (double)n_pos, n_pos);
    printf("mean log-probability of the next token %.5f and %.5f, a difference of %.3f%%\n", next_p / (double)n_next,
           next_q / (double)n_next, 100 * fabs(next_q / next_p - 1));
    return 0;
}
