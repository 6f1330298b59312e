#include "random_model.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "wake.h"

static const struct model_shape shapes[] = {
    {"llama-8b", 32, 4096, 14336, 32, 8, 128, 128256, 0, true},
    {"llama-1b", 16, 2048, 8192, 32, 8, 64, 128256, 0, false},
    {"qwen3-0.6b", 28, 1024, 3072, 16, 8, 128, 151936, MODEL_NEOX_ROPE | MODEL_QK_NORM, false},
    {"tiny", 4, 256, 768, 4, 2, 64, 4096, 0, false},
};

void bench_check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "%s: %s\n", program_invocation_short_name, e->msg);
        exit(1);
    }
}

const struct model_shape *model_shape_find(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(shapes[i].name, name))
            return &shapes[i];
    return NULL;
}

void model_shape_describe(const struct model_shape *s, struct model_desc *d)
{
    *d = (struct model_desc){.n_vocab = s->n_vocab,
                             .n_embd = s->n_embd,
                             .n_layer = s->n_layer,
                             .n_head = s->n_head,
                             .n_head_kv = s->n_head_kv,
                             .head_dim = s->head_dim,
                             .n_ff = s->n_ff,
                             .n_ctx_train = 131072,
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
}

/* Some different blocks, over and over. */
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

struct bmodel *random_model_load(const struct backend_ops *ops, struct backend *b, const struct model_shape *s,
                                 int type)
{
    struct model_desc d;
    model_shape_describe(s, &d);
    int64_t n_q = s->n_head * s->head_dim, n_kv = s->n_head_kv * s->head_dim, n = s->n_embd, n_ff = s->n_ff;
    void *w = random_blocks(type, dtype_row_bytes(type, n) * (size_t)s->n_vocab);
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
    if (s->flags & MODEL_QK_NORM)
        layer.q_norm = layer.k_norm = (struct tensor){ones, DT_F32, 1, s->head_dim};
    struct model_weights all = {.tok_embd = {w, type, s->n_vocab, n},
                                .out_norm = {ones, DT_F32, 1, n},
                                .layer = malloc(sizeof layer * (size_t)s->n_layer)};
    if (s->own_head)
        all.out = all.tok_embd;
    for (int32_t l = 0; l < s->n_layer; l++)
        all.layer[l] = layer;
    struct bmodel *m;
    struct err e = {0};
    double start = (double)clock_ns();
    bench_check(ops->load(b, &d, &all, NULL, NULL, &m, &e), &e);
    printf("load: %.2f s\n", ((double)clock_ns() - start) * 1e-9);
    free(w);
    free(ones);
    free(all.layer);
    return m;
}
