#include "fake.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "readout.h"
#include "rng.h"
#include "visible.h"

enum { N_LIKELY = 16 }; /* tokens that stand out in a row's logits */

struct backend {
    struct plan_limits limits;
};

struct bmodel {
    struct model_desc d;
    struct plan_limits limits;
    struct kv_config kv;
    uint64_t *slot;    /* [n_slot] hash of (position, input) */
    uint64_t *staging; /* sources of the moves of a plan */
    uint64_t *bank;    /* [n_bank] */
    float *logits;
    struct readout_ws readout;
    const struct step_plan *plan;
};

static atomic_long fail_countdown, step_us;

void fake_fail_wait(long n)
{
    atomic_store(&fail_countdown, n);
}

void fake_set_step_us(long us)
{
    atomic_store(&step_us, us);
}

struct model_desc fake_model_desc(int32_t n_vocab, int32_t n_ctx_train)
{
    return (struct model_desc){.n_vocab = n_vocab,
                               .n_embd = 8,
                               .n_layer = 4,
                               .n_head = 1,
                               .n_head_kv = 1,
                               .head_dim = 8,
                               .n_ff = 8,
                               .n_ctx_train = n_ctx_train,
                               .rope_dim = 8,
                               .rms_eps = 1e-5f,
                               .attn_scale = 1,
                               .rope_mscale = 1,
                               .embd_scale = 1,
                               .residual_scale = 1,
                               .logit_scale = 1};
}

static int fake_open(const struct backend_options *opt, struct backend **out, struct err *e)
{
    *out = mem_calloc(1, sizeof **out);
    if (!*out)
        return err_set(e, ERR_NOMEM, "out of memory");
    (*out)->limits = opt->limits;
    return 0;
}

static void fake_close(struct backend *b)
{
    mem_free(b);
}

static int fake_load(struct backend *b, const struct model_desc *d, const struct model_weights *w,
                     load_progress progress, void *arg, struct bmodel **out, struct err *e)
{
    struct bmodel *m = mem_calloc(1, sizeof *m);
    if (!m)
        return err_set(e, ERR_NOMEM, "out of memory");
    m->d = *d;
    m->limits = b->limits;
    *out = m;
    return 0;
}

static void fake_unload(struct bmodel *m)
{
    if (!m)
        return;
    mem_free(m->slot);
    mem_free(m->staging);
    mem_free(m->bank);
    mem_free(m->logits);
    readout_ws_free(&m->readout);
    mem_free(m);
}

static size_t n_slots(const struct kv_config *kv)
{
    return (size_t)kv->n_block * (size_t)kv->block_len;
}

static size_t fake_kv_bytes(const struct bmodel *m, const struct kv_config *kv)
{
    return n_slots(kv) * sizeof *m->slot;
}

static int fake_kv_create(struct bmodel *m, const struct kv_config *kv, struct err *e)
{
    m->kv = *kv;
    m->slot = mem_calloc(n_slots(kv), sizeof *m->slot);
    m->staging = mem_alloc((size_t)m->limits.n_kvop * (size_t)kv->block_len * sizeof *m->staging);
    m->bank = mem_calloc((size_t)kv->n_bank, sizeof *m->bank);
    m->logits = mem_alloc((size_t)m->d.n_vocab * sizeof *m->logits);
    if (!m->slot || !m->staging || !m->bank || !m->logits)
        return err_set(e, ERR_NOMEM, "out of memory");
    return readout_ws_create(&m->readout, m->d.n_vocab, m->limits.n_row + PLAN_MAX_TREE, e);
}

static int fake_submit(struct bmodel *m, const struct step_plan *p, struct err *e)
{
    BUG_ON(m->plan);
    m->plan = p;
    return 0;
}

static void move_slots(struct bmodel *m, const struct step_plan *p)
{
    uint64_t *at = m->staging;
    for (int32_t i = 0; i < p->n.n_kvop; at += p->kvop[i].n, i++)
        memcpy(at, m->slot + p->kvop[i].src, sizeof *at * (size_t)p->kvop[i].n);
    at = m->staging;
    for (int32_t i = 0; i < p->n.n_kvop; at += p->kvop[i].n, i++)
        memcpy(m->slot + p->kvop[i].dst, at, sizeof *at * (size_t)p->kvop[i].n);
}

static uint64_t input_hash(const struct bmodel *m, const struct step_plan *p, int32_t r)
{
    if (p->tok[r] >= 0)
        return rng_mix((uint64_t)p->tok[r]);
    const struct mix *mix = &p->mix[ROW_MIX(p->tok[r])];
    if (mix->n_part == 1 && !mix->from_bank && p->part[mix->part0].weight == 1)
        return rng_mix((uint64_t)p->part[mix->part0].src); /* a mixture of one token is that token */
    uint64_t h = 0;
    for (int32_t j = mix->part0; j < mix->part0 + mix->n_part; j++) {
        uint32_t weight_bits;
        memcpy(&weight_bits, &p->part[j].weight, sizeof weight_bits);
        h += rng_mix((mix->from_bank ? m->bank[p->part[j].src] : (uint64_t)p->part[j].src) ^ (uint64_t)weight_bits
                                                                                                 << 32);
    }
    return rng_mix(h);
}

/* What the row sees, each key with its position, itself included. */
static uint64_t row_hash(const struct bmodel *m, const struct step_plan *p, const struct span *s, int32_t r)
{
    struct visible vis;
    visible_of(p, s, r, m->d.sliding_window, &vis);
    uint64_t h = (uint64_t)(s->layer1 - m->d.n_layer); /* an early exit answers differently */
    for (int32_t j = 0; j < vis.n_prefix + vis.n_tail; j++) {
        int32_t slot = span_slot(p, s, m->kv.block_len, visible_slot(&vis, j));
        h += rng_mix(m->slot[slot] + (uint64_t)(vis.first_pos + j) * 0x9E3779B97F4A7C15u);
    }
    return rng_mix(h);
}

static void fill_logits(struct bmodel *m, uint64_t h)
{
    for (int32_t t = 0; t < m->d.n_vocab; t++)
        m->logits[t] = -12;
    for (int i = 0; i < N_LIKELY; i++) {
        h = rng_mix(h);
        m->logits[h % (uint64_t)m->d.n_vocab] = (float)(h >> 40) * 0x1p-24f * 8;
    }
}

static int fake_wait(struct bmodel *m, struct step_result *out, struct err *e)
{
    const struct step_plan *p = m->plan;
    m->plan = NULL;
    long us = atomic_load_explicit(&step_us, memory_order_relaxed);
    if (us > 0)
        usleep((useconds_t)us);
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1)
        return err_set(e, ERR_DEVICE, "the fake device failed, as it was told to");

    move_slots(m, p);
    for (int32_t i = 0; i < p->n.n_span; i++) {
        const struct span *s = &p->span[i];
        for (int32_t r = s->row0; r < s->row0 + s->n_row; r++)
            m->slot[span_slot(p, s, m->kv.block_len, row_slot(s, r))] = input_hash(m, p, r);
    }
    readout_begin(&m->readout);
    int32_t logits_row = -1;
    uint64_t hash = 0;
    for (int32_t i = 0; i < p->n.n_readout; i++) {
        const struct readout *r = &p->readout[i];
        const struct span *s = plan_span_of(p, r->row);
        if (logits_row != r->row) {
            hash = row_hash(m, p, s, r->row);
            fill_logits(m, hash);
            logits_row = r->row;
        }
        if (r->kind == READ_CONTRAST)
            out->f[r->f0] = (float)(hash >> 40) * 0x1p-24f;
        else if (r->kind == READ_HIDDEN && r->bank >= 0)
            m->bank[r->bank] = hash;
        else if (r->kind == READ_HIDDEN)
            for (int32_t j = 0; j < r->n; j++)
                out->f[r->f0 + j] = (float)(rng_mix(hash + (uint64_t)j) >> 40) * 0x1p-24f;
        else
            readout_logits(p, s, r, m->logits, &m->readout, out);
    }
    return 0;
}

static void fake_stats(const struct bmodel *m, struct backend_stats *s)
{
    *s = (struct backend_stats){
        .kv_bytes = fake_kv_bytes(m, &m->kv), .n_thread = 1, .device = "fake: hashes, no arithmetic"};
}

const struct backend_ops backend_fake = {
    .name = "fake",
    .open = fake_open,
    .load = fake_load,
    .kv_bytes = fake_kv_bytes,
    .kv_create = fake_kv_create,
    .submit = fake_submit,
    .wait = fake_wait,
    .stats = fake_stats,
    .unload = fake_unload,
    .close = fake_close,
};
