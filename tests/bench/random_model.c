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

static size_t model_bytes(const struct model_shape *s, int type)
{
    size_t n_q = (size_t)(s->n_head * s->head_dim), n_kv = (size_t)(s->n_head_kv * s->head_dim), n = (size_t)s->n_embd;
    size_t layer = 2 * n * n_q + 2 * n * n_kv + 3 * n * (size_t)s->n_ff, table = n * (size_t)s->n_vocab;
    const struct dtype_info *info = dtype_info(type);
    return (layer * (size_t)s->n_layer + table * (s->own_head ? 2 : 1)) / (size_t)info->block_len *
           (size_t)info->block_bytes;
}

/* The next matrix: behind the one before, or, where none is apart, in the same place. */
static struct tensor next_matrix(struct random_weights *r, int type, int64_t n_row, int64_t n_col)
{
    struct tensor t = {(char *)r->matrices + r->at, type, n_row, n_col};
    if (r->apart)
        r->at += dtype_row_bytes(type, n_col) * (size_t)n_row;
    return t;
}

void random_weights_make(struct random_weights *r, const struct model_shape *s, int type, bool apart)
{
    int64_t n_q = s->n_head * s->head_dim, n_kv = s->n_head_kv * s->head_dim, n = s->n_embd, n_ff = s->n_ff;
    *r = (struct random_weights){.apart = apart};
    r->bytes = apart ? model_bytes(s, type) : dtype_row_bytes(type, n) * (size_t)s->n_vocab;
    r->matrices = random_blocks(type, r->bytes);
    r->ones = malloc(sizeof *r->ones * (size_t)n);
    for (int64_t i = 0; i < n; i++)
        r->ones[i] = 1;
    r->w = (struct model_weights){.tok_embd = next_matrix(r, type, s->n_vocab, n),
                                  .out_norm = {r->ones, DT_F32, 1, n},
                                  .layer = calloc((size_t)s->n_layer, sizeof *r->w.layer)};
    if (s->own_head)
        r->w.out = next_matrix(r, type, s->n_vocab, n);
    for (struct layer_weights *l = r->w.layer; l < r->w.layer + s->n_layer; l++) {
        l->attn_norm = l->ffn_norm = r->w.out_norm;
        if (s->flags & MODEL_QK_NORM)
            l->q_norm = l->k_norm = (struct tensor){r->ones, DT_F32, 1, s->head_dim};
        l->wq = next_matrix(r, type, n_q, n);
        l->wk = next_matrix(r, type, n_kv, n);
        l->wv = next_matrix(r, type, n_kv, n);
        l->wo = next_matrix(r, type, n, n_q);
        l->gate = next_matrix(r, type, n_ff, n);
        l->up = next_matrix(r, type, n_ff, n);
        l->down = next_matrix(r, type, n, n_ff);
    }
}

void random_weights_free(struct random_weights *r)
{
    free(r->matrices);
    free(r->ones);
    free(r->w.layer);
}

struct bmodel *random_model_load(const struct backend_ops *ops, struct backend *b, const struct model_shape *s,
                                 int type)
{
    struct model_desc d;
    struct random_weights r;
    struct bmodel *m;
    struct err e = {0};
    model_shape_describe(s, &d);
    random_weights_make(&r, s, type, false);
    double start = (double)clock_ns();
    bench_check(ops->load(b, &d, &r.w, NULL, NULL, &m, &e), &e);
    printf("load: %.2f s\n", ((double)clock_ns() - start) * 1e-9);
    random_weights_free(&r);
    return m;
}
