/* Logits against transformers' for a model of each family, as GGUF files and as Hugging Face directories
 * (golden/logits/make.py, golden/hf/make.py): in f32, max |difference| at most
 * 1e-4 of max |logit|, and the same top token wherever its lead exceeds that. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "random_plan.h"
#include "../unit/suite.h"

static const struct {
    const char *model, *logits; /* in GOLDEN_DIR */
} models[] = {
    {"logits/llama.gguf", "logits/llama.bin"},
    {"logits/llama3.gguf", "logits/llama3.bin"},
    {"logits/mistral.gguf", "logits/mistral.bin"},
    {"logits/qwen2.gguf", "logits/qwen2.bin"},
    {"logits/qwen3.gguf", "logits/qwen3.bin"},
    {"logits/yarn.gguf", "logits/yarn.bin"},
    {"logits/smollm3.gguf", "logits/smollm3.bin"},
    {"logits/gemma2.gguf", "logits/gemma2.bin"},
    {"logits/gemma3.gguf", "logits/gemma3.bin"},
    {"logits/phi3.gguf", "logits/phi3.bin"},
    {"logits/phi3-short.gguf", "logits/phi3-short.bin"},
    {"logits/olmo2.gguf", "logits/olmo2.bin"},
    {"logits/granite.gguf", "logits/granite.bin"},
    {"logits/mixtral.gguf", "logits/mixtral.bin"},
    {"logits/qwen3moe.gguf", "logits/qwen3moe.bin"},
    {"hf/models/llama3", "hf/models/llama3/logits.bin"},
    {"hf/models/mistral", "hf/models/mistral/logits.bin"}, /* of several files */
    {"hf/models/qwen3/", "hf/models/qwen3/logits.bin"},
    {"hf/models/yarn", "hf/models/yarn/logits.bin"},
    {"hf/models/smollm3", "hf/models/smollm3/logits.bin"},
    {"hf/models/gemma2", "hf/models/gemma2/logits.bin"},
    {"hf/models/gemma3", "hf/models/gemma3/logits.bin"},
    {"hf/models/phi3", "hf/models/phi3/logits.bin"},
    {"hf/models/phi3-short", "hf/models/phi3-short/logits.bin"},
    {"hf/models/olmo2", "hf/models/olmo2/logits.bin"},
    {"hf/models/granite", "hf/models/granite/logits.bin"},
    {"hf/models/mixtral", "hf/models/mixtral/logits.bin"},
    {"hf/models/qwen3moe", "hf/models/qwen3moe/logits.bin"},
};
enum { N_MODEL = sizeof models / sizeof *models, BLOCK_LEN = 16, N_BLOCK = 8 };

struct golden {
    int32_t n_tok, n_vocab, tok[256];
    float *logits; /* [n_tok][n_vocab] */
};

static void read_golden(const char *name, struct golden *g)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s is missing", path);
    ck_assert_uint_eq(fread(&g->n_tok, 4, 1, f), 1);
    ck_assert_uint_eq(fread(&g->n_vocab, 4, 1, f), 1);
    ck_assert_uint_eq(fread(g->tok, 4, (size_t)g->n_tok, f), (size_t)g->n_tok);
    size_t n = (size_t)g->n_tok * (size_t)g->n_vocab;
    g->logits = malloc(n * sizeof *g->logits);
    ck_assert_uint_eq(fread(g->logits, 4, n, f), n);
    fclose(f);
}

/* Directories have rows of the table that no token has. */
static void trim(struct golden *g, int32_t n_vocab)
{
    ck_assert_int_le(n_vocab, g->n_vocab);
    for (int32_t r = 0; r < g->n_tok; r++)
        memmove(g->logits + (size_t)r * (size_t)n_vocab, g->logits + (size_t)r * (size_t)g->n_vocab,
                (size_t)n_vocab * sizeof *g->logits);
    g->n_vocab = n_vocab;
}

/* All logits of one row by listing the vocabulary; logsumexp turns log-probabilities back into logits. */
static void run_model(const struct backend_ops *ops, const struct model *m, const struct golden *g, float *out)
{
    struct rig rig;
    struct tiny_model t = {.d = m->desc, .w = m->w};
    struct kv_config kv = {.block_len = BLOCK_LEN, .n_block = N_BLOCK, .k_type = DT_F32, .v_type = DT_F32};
    int32_t bt[N_BLOCK], list[PLAN_MAX_LIST];
    for (int32_t i = 0; i < N_BLOCK; i++)
        bt[i] = i;
    rig_open(&rig, ops, &t, &kv, 2);
    rig_chain(&rig, 0, 0, g->tok, g->n_tok, bt, N_BLOCK);
    for (int32_t r = 0; r < g->n_tok; r++) {
        for (int32_t at = 0; at < g->n_vocab; at += PLAN_MAX_LIST) {
            int32_t n = g->n_vocab - at < PLAN_MAX_LIST ? g->n_vocab - at : PLAN_MAX_LIST;
            for (int32_t i = 0; i < n; i++)
                list[i] = at + i;
            ck_assert_int_ge(
                plan_readout(&rig.plan, &(struct readout){.kind = READ_LOGPROB, .raw = 1, .row = r, .n = n, .bank = -1},
                             list),
                0);
        }
        ck_assert_int_ge(
            plan_readout(&rig.plan, &(struct readout){.kind = READ_TOPK, .raw = 1, .row = r, .n = 1, .bank = -1}, NULL),
            0);
    }
    rig_step(&rig);
    float *f = rig.out.f;
    for (int32_t r = 0; r < g->n_tok; r++, f += 3) {
        for (int32_t i = 0; i < g->n_vocab; i++)
            out[(size_t)r * (size_t)g->n_vocab + (size_t)i] = *f++;
        for (int32_t i = 0; i < g->n_vocab; i++)
            out[(size_t)r * (size_t)g->n_vocab + (size_t)i] += f[1]; /* logsumexp follows the top token */
    }
    rig_close(&rig);
}

static int32_t top_of(const float *x, int32_t n, float *lead)
{
    int32_t best = 0;
    float second = -INFINITY;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    for (int32_t i = 0; i < n; i++)
        if (i != best)
            second = fmaxf(second, x[i]);
    *lead = x[best] - second;
    return best;
}

/* The same top token wherever its lead is beyond doubt. */
static void compare_tops(const struct golden *g, const float *got, float doubt)
{
    for (int32_t r = 0; r < g->n_tok; r++) {
        float lead, ignored;
        int32_t top = top_of(g->logits + (size_t)r * (size_t)g->n_vocab, g->n_vocab, &lead);
        if (lead > doubt)
            ck_assert_int_eq(top_of(got + (size_t)r * (size_t)g->n_vocab, g->n_vocab, &ignored), top);
    }
}

/* The largest difference as a share of the largest logit; `spoil` may change the description before. */
static double off_by(const char *backend, const char *model, const char *logits, void (*spoil)(struct model_desc *d))
{
    struct golden g;
    struct model m;
    struct err e = {0};
    char path[4096];
    const struct backend_ops *ops = backend_find(backend, &e);
    ck_assert_msg(ops != NULL, "%s", e.msg);
    read_golden(logits, &g);
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, model);
    ck_assert_msg(!model_open(path, &m, &e), "%s", e.msg);
    model_fit_context(&m, g.n_tok);
    if (spoil)
        spoil(&m.desc);
    trim(&g, m.desc.n_vocab);
    size_t n = (size_t)g.n_tok * (size_t)g.n_vocab;
    float *got = malloc(n * sizeof *got), largest = 0, worst = 0;
    run_model(ops, &m, &g, got);
    for (size_t i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(g.logits[i]));
        worst = fmaxf(worst, fabsf(got[i] - g.logits[i]));
    }
    if (!spoil)
        compare_tops(&g, got, 2e-4f * largest);
    free(got);
    free(g.logits);
    model_close(&m);
    return worst / largest;
}

static void compare(const char *backend)
{
    for (int k = 0; k < N_MODEL; k++) {
        double share = off_by(backend, models[k].model, models[k].logits, NULL);
        printf("%s on %s: max |difference| %.2e of max |logit|\n", models[k].model, backend, share);
        ck_assert_msg(share <= 1e-4, "%s: off by %g", models[k].model, share);
    }
}

START_TEST(ref_equals_transformers)
{
    compare("ref");
}
END_TEST

START_TEST(cpu_equals_transformers)
{
    if (backend_find("cpu", NULL))
        compare("cpu");
}
END_TEST

/* ---- Negative controls: what a family has beside others counts in its golden logits ---- */

static void no_attn_cap(struct model_desc *d)
{
    d->attn_softcap = 0;
}

static void no_logit_cap(struct model_desc *d)
{
    d->logit_softcap = 0;
}

static void silu(struct model_desc *d)
{
    d->flags &= ~(uint32_t)MODEL_GELU;
}

static void no_embd_scale(struct model_desc *d)
{
    d->embd_scale = 1;
}

static void no_residual_scale(struct model_desc *d)
{
    d->residual_scale = 1;
}

static void no_logit_scale(struct model_desc *d)
{
    d->logit_scale = 1;
}

static void plain_attn_scale(struct model_desc *d)
{
    d->attn_scale = 1 / sqrtf((float)d->head_dim);
}

static void one_kind(struct model_desc *d)
{
    memset(d->layer_kind, 0, sizeof d->layer_kind);
}

static void wide_window(struct model_desc *d)
{
    d->sliding_window = d->sliding_window_1 = 0;
}

static void one_base(struct model_desc *d)
{
    memcpy(d->rope_inv_freq_1, d->rope_inv_freq, sizeof d->rope_inv_freq);
}

static void no_magnitude(struct model_desc *d)
{
    d->rope_mscale = 1;
}

static void no_qk_norm(struct model_desc *d)
{
    d->flags &= ~(uint32_t)MODEL_QK_NORM_ALL;
}

static void fewer_experts(struct model_desc *d)
{
    d->n_expert_used--;
}

static void other_shares(struct model_desc *d)
{
    d->flags ^= MODEL_EXPERT_SUM_1;
}

START_TEST(every_feature_counts)
{
    static const struct {
        const char *model;
        void (*spoil)(struct model_desc *d);
    } cases[] = {
        {"gemma2", no_attn_cap},       {"gemma2", no_logit_cap},       {"gemma2", silu},
        {"gemma2", no_embd_scale},     {"gemma2", wide_window},        {"gemma3", wide_window},
        {"gemma3", one_base},          {"smollm3", one_kind},          {"phi3", no_magnitude},
        {"yarn", no_magnitude},        {"phi3-short", wide_window},    {"olmo2", no_qk_norm},
        {"granite", no_embd_scale},    {"granite", no_residual_scale}, {"granite", no_logit_scale},
        {"granite", plain_attn_scale}, {"mixtral", fewer_experts},     {"mixtral", other_shares},
        {"qwen3moe", other_shares},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char model[64], logits[64];
        snprintf(model, sizeof model, "logits/%s.gguf", cases[i].model);
        snprintf(logits, sizeof logits, "logits/%s.bin", cases[i].model);
        ck_assert_msg(off_by("ref", model, logits, cases[i].spoil) > 1e-2, "case %zu: %s is as before", i, model);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("logits");
    tcase_add_test(tc, ref_equals_transformers);
    tcase_add_test(tc, cpu_equals_transformers);
    tcase_add_test(tc, every_feature_counts);
    return suite_run(tc);
}
