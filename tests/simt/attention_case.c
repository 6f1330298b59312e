#include "attention_case.h"

#include <string.h>

#include "values.h"
#include "visible.h"

enum { POOL_SLOTS = 32768 };

static size_t cache_elements(const struct attn_case *c)
{
    return (size_t)POOL_SLOTS * (size_t)c->shape.n_head_kv * (size_t)c->shape.head_dim;
}

/* Slots are filled as spans take them; all others stay NaN. */
void attn_case_open(struct attn_case *c, struct attn_shape shape, int32_t block_len, int32_t kv_type, uint64_t seed)
{
    *c = (struct attn_case){.shape = shape, .block_len = block_len, .kv_type = kv_type, .seed = seed};
    c->n_block = POOL_SLOTS / block_len;
    struct plan_limits cap = {.n_span = 8,
                              .n_row = 700,
                              .n_held = 256,
                              .n_mix = 1,
                              .n_part = 1,
                              .n_kvop = 1,
                              .n_law = 1,
                              .n_law_tok = 1,
                              .n_ban = 1,
                              .n_mask = 1,
                              .n_readout = 1,
                              .n_list = 1,
                              .n_bt = 8 * POOL_SLOTS,
                              .n_out_f = 1,
                              .n_out_i = 1,
                              .n_vocab = 10};
    ck_assert(!plan_create(&c->plan, &cap, NULL));
    size_t n = cache_elements(c), element = kv_type == KV_FP8 ? 1 : 2;
    c->kv = (struct kv_layer){.k = malloc(n * element),
                              .v = malloc(n * element),
                              .type = kv_type,
                              .n_head_kv = shape.n_head_kv,
                              .head_dim = shape.head_dim,
                              .block_shift = __builtin_ctz((unsigned)block_len)};
    memset(c->kv.k, 0xff, n * element);
    memset(c->kv.v, 0xff, n * element);
    size_t n_scale = (size_t)POOL_SLOTS * (size_t)shape.n_head_kv;
    c->kv.k_scale = values_f32(seed + 1, n_scale, 1);
    c->kv.v_scale = values_f32(seed + 2, n_scale, 1);
}

void attn_case_close(struct attn_case *c)
{
    plan_free(&c->plan);
    free(c->kv.k), free(c->kv.v), free(c->kv.k_scale), free(c->kv.v_scale), free(c->q);
}

/* Keys large enough that a few of a row's many keys carry its result. */
static void fill_slot(struct attn_case *c, int32_t slot)
{
    for (int32_t h = 0; h < c->shape.n_head_kv; h++) {
        int64_t row = kv_row(&c->kv, slot, h);
        c->kv.k_scale[row] = 0.02f + 0.02f * fabsf(c->kv.k_scale[row]);
        c->kv.v_scale[row] = 0.005f + 0.005f * fabsf(c->kv.v_scale[row]);
        for (int64_t i = row * c->shape.head_dim; i < (row + 1) * c->shape.head_dim; i++) {
            float k = 9 * value_at(c->seed + 3, (uint64_t)i), v = value_at(c->seed + 4, (uint64_t)i);
            if (c->kv_type == KV_FP8) { /* any byte that is not NaN */
                ((uint8_t *)c->kv.k)[i] =
                    (uint8_t)(rng_mix((uint64_t)i) & 0x80) | (uint8_t)value_int(c->seed, (uint64_t)i, 0, 0x7e);
                ((uint8_t *)c->kv.v)[i] =
                    (uint8_t)(rng_mix((uint64_t)i + 5) & 0x80) | (uint8_t)value_int(c->seed + 5, (uint64_t)i, 0, 0x70);
            } else {
                ((uint16_t *)c->kv.k)[i] = f32_to_bf16(k);
                ((uint16_t *)c->kv.v)[i] = f32_to_bf16(v);
            }
        }
    }
}

void attn_case_span(struct attn_case *c, int32_t ctx_len, int32_t n_held, int32_t n_chain, int32_t n_tree, int attn)
{
    struct span s = {
        .ctx_len = ctx_len, .n_chain = n_chain, .group = -1, .law = -1, .layer1 = 1, .attn = (uint8_t)attn};
    int si = attn_plan_span(&c->plan, c->block_len, c->n_block, &c->next_block, c->seed, &s, n_held, n_tree);
    for (int32_t i = 0; i < ctx_len + n_held + n_chain + n_tree; i++)
        fill_slot(c, span_slot(&c->plan, &c->plan.span[si], c->block_len, i));
}

void attn_case_queries(struct attn_case *c)
{
    struct plan_env env = {.n_vocab = 10, .n_layer = 1, .n_embd = 4, .n_block = c->n_block, .block_len = c->block_len};
    struct err e = {0};
    ck_assert_msg(!plan_check(&c->plan, &env, &e), "%s", e.msg);
    c->q = values_bf16(c->seed + 6, attn_case_out(c), 1);
}

size_t attn_case_out(const struct attn_case *c)
{
    return (size_t)c->plan.n.n_row * (size_t)c->shape.n_head * (size_t)c->shape.head_dim;
}

/* Of scores: of every other three seeds. */
static float attn_case_cap(const struct attn_case *c)
{
    return c->seed / 3 % 2 ? 2.5f : 0;
}

/* A block for each item; or few blocks that go through them in turns, and more for folds than there are. */
static struct attn_grid attn_case_grid(const struct attn_case *c, const struct attn_work *w)
{
    if (c->seed % 3)
        return (struct attn_grid){.narrow = w->n_narrow, .wide = w->n_item - w->n_narrow, .fold = w->n_fold};
    return (struct attn_grid){.narrow = 1, .wide = 2, .fold = c->plan.n.n_row};
}

void attn_case_run(struct attn_case *c, int32_t n_block, int deterministic, int32_t n_part, uint16_t *out,
                   int32_t *n_fold)
{
    struct attn_work w = {.cap_part = attn_work_min_part(&c->plan.n) + n_part};
    w.cap_item = attn_work_max_item(&c->plan.n, &c->shape, w.cap_part);
    w.row = malloc(sizeof *w.row * (size_t)c->plan.n.n_row);
    w.fold = malloc(sizeof *w.fold * (size_t)c->plan.n.n_row);
    w.item = malloc(sizeof *w.item * (size_t)w.cap_item);
    attn_work_make(&c->plan, 0, &c->shape, n_block, deterministic, &w);
    ck_assert_int_le(w.n_item, w.cap_item);
    ck_assert_int_le(w.n_part, w.cap_part);
    size_t scratch_bytes = attn_scratch_bytes(&c->shape, w.n_part);
    float *scratch = malloc(scratch_bytes ? scratch_bytes : 1);
    memset(scratch, 0xff, scratch_bytes);
    memset(out, 0xff, attn_case_out(c) * sizeof *out);
    struct attn_count count = {.n_narrow = w.n_narrow, .n_item = w.n_item, .n_fold = w.n_fold};
    struct attn_args a = {.count = &count,
                          .row = w.row,
                          .item = w.item,
                          .fold = w.fold,
                          .bt = c->plan.bt,
                          .grid = attn_case_grid(c, &w),
                          .q = (const struct bf16 *)c->q,
                          .out = (struct bf16 *)out,
                          .scratch = scratch,
                          .n_part = w.n_part,
                          .kv = c->kv,
                          .n_head = c->shape.n_head,
                          .scale = 1 / sqrtf((float)c->shape.head_dim),
                          .soft_cap = attn_case_cap(c)};
    ck_assert(!attn_run(&a, NULL));
    if (n_fold)
        *n_fold = w.n_fold;
    free(w.row), free(w.fold), free(w.item), free(scratch);
}

static double cached(const struct attn_case *c, const void *plane, const float *scale, int64_t row, int32_t i)
{
    int64_t at = row * c->shape.head_dim + i;
    return c->kv_type == KV_FP8 ? (double)fp8_value(((const uint8_t *)plane)[at]) * scale[row]
                                : bf16_to_f32(((const uint16_t *)plane)[at]);
}

static void check_query(struct attn_case *c, const struct span *s, const struct visible *vis, int32_t r, int32_t h,
                        const uint16_t *out)
{
    int32_t dim = c->shape.head_dim, n_key = vis->n_prefix + vis->n_tail,
            kv_head = h / (c->shape.n_head / c->shape.n_head_kv);
    size_t at = ((size_t)r * (size_t)c->shape.n_head + (size_t)h) * (size_t)dim;
    double cap = (double)attn_case_cap(c);
    double *weight = malloc(sizeof *weight * (size_t)n_key), top = -INFINITY, sum = 0, acc[KV_MAX_HEAD_DIM] = {0};
    for (int32_t j = 0; j < n_key; j++) {
        int64_t row = kv_row(&c->kv, span_slot(&c->plan, s, c->block_len, visible_slot(vis, j)), kv_head);
        weight[j] = 0;
        for (int32_t i = 0; i < dim; i++)
            weight[j] += bf16_to_f32(c->q[at + (size_t)i]) * cached(c, c->kv.k, c->kv.k_scale, row, i);
        weight[j] /= sqrt(dim);
        if (cap > 0)
            weight[j] = cap * tanh(weight[j] / cap);
        top = fmax(top, weight[j]);
    }
    for (int32_t j = 0; j < n_key; j++) {
        int64_t row = kv_row(&c->kv, span_slot(&c->plan, s, c->block_len, visible_slot(vis, j)), kv_head);
        sum += weight[j] = exp(weight[j] - top);
        for (int32_t i = 0; i < dim; i++)
            acc[i] += weight[j] * cached(c, c->kv.v, c->kv.v_scale, row, i);
    }
    double largest = c->kv_type == KV_FP8 ? 2.5 : 1; /* of V: weights are rounded to bf16 before they meet it */
    for (int32_t i = 0; i < dim; i++)
        CK_CLOSE(bf16_to_f32(out[at + (size_t)i]), acc[i] / sum, 0x1p-9 * largest + 0x1p-8 * fabs(acc[i] / sum),
                 "row %d (%d of span) head %d element %d of %d, %d keys", r, r - s->row0, h, i, dim, n_key);
    free(weight);
}

void attn_case_check(struct attn_case *c, const uint16_t *out)
{
    for (int32_t si = 0; si < c->plan.n.n_span; si++) {
        const struct span *s = &c->plan.span[si];
        for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
            struct visible vis;
            visible_of(&c->plan, s, r, c->shape.sliding_window, &vis);
            for (int32_t h = 0; h < c->shape.n_head; h++)
                check_query(c, s, &vis, r, h, out);
        }
    }
}

void attn_case_copy_slot(struct attn_case *c, int to_span, int32_t to, int from_span, int32_t from)
{
    size_t bytes = (size_t)c->shape.head_dim * (c->kv_type == KV_FP8 ? 1 : 2);
    for (int32_t h = 0; h < c->shape.n_head_kv; h++) {
        int64_t a = kv_row(&c->kv, span_slot(&c->plan, &c->plan.span[to_span], c->block_len, to), h);
        int64_t b = kv_row(&c->kv, span_slot(&c->plan, &c->plan.span[from_span], c->block_len, from), h);
        memcpy((char *)c->kv.k + (size_t)a * bytes, (char *)c->kv.k + (size_t)b * bytes, bytes);
        memcpy((char *)c->kv.v + (size_t)a * bytes, (char *)c->kv.v + (size_t)b * bytes, bytes);
        c->kv.k_scale[a] = c->kv.k_scale[b];
        c->kv.v_scale[a] = c->kv.v_scale[b];
    }
}
