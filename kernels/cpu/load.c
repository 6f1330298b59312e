/* Weights from the file's layout to the panels of weight.h, each tensor repacked once by all workers. They go through
 * the file in its order, asking for what comes next and letting go of what they are through with, so that reading and
 * packing overlap and the file's pages never add up to a second copy of the model. */
#include <string.h>

#include "mem.h"
#include "pack_cache.h"

enum { SLICE_BYTES = 32 << 20, AHEAD_BYTES = 128 << 20, PIECE_BYTES = 1 << 20 };

struct loader {
    struct bmodel *m;
    const struct weight_source *source; /* NULL: plain memory */
    load_progress progress;
    void *arg;
    struct slots slots;
    size_t done, wanted; /* bytes of the file */
    int32_t ahead;       /* the tensor that is wanted next, */
    size_t ahead_at;     /* from this byte on */
    struct err *e;
};

static void want_ahead(struct loader *ld)
{
    if (!ld->source)
        return;
    while (ld->ahead < ld->slots.n && ld->wanted < ld->done + AHEAD_BYTES) {
        const struct slot *s = ld->slots.by_address[ld->ahead];
        size_t left = s->from_bytes - ld->ahead_at, n = left < SLICE_BYTES ? left : SLICE_BYTES;
        ld->source->want(ld->source->arg, (const char *)s->from->data + ld->ahead_at, n);
        ld->wanted += n;
        ld->ahead_at += n;
        if (n == left) {
            ld->ahead++;
            ld->ahead_at = 0;
        }
    }
}

static int finish(struct loader *ld, const struct slot *s, size_t from, size_t bytes)
{
    if (ld->source)
        ld->source->done(ld->source->arg, (const char *)s->from->data + from, bytes);
    ld->done += bytes;
    if (ld->progress && ld->progress(ld->arg, ld->done, ld->slots.from_bytes))
        return err_set(ld->e, ERR_CANCELED, "loading was stopped");
    return 0;
}

struct pack_job { /* panels are handed out: nobody waits long for a worker that is held up */
    const struct slot *s;
    int32_t end, piece;
    atomic_int next;
};

static void pack_pieces(void *arg, int worker)
{
    struct pack_job *j = arg;
    int32_t p;
    while ((p = atomic_fetch_add_explicit(&j->next, j->piece, memory_order_relaxed)) < j->end)
        weight_pack(j->s->matrix, j->s->from, p, p + j->piece < j->end ? p + j->piece : j->end);
}

static int fill_matrix(struct loader *ld, const struct slot *s)
{
    const struct weight *w = s->matrix;
    size_t row_bytes = dtype_row_bytes(s->from->type, s->from->n_col);
    int32_t step = (int32_t)(SLICE_BYTES / w->panel_bytes) + 1;
    for (int32_t p = 0; p < w->n_panel; p += step) {
        struct pack_job j = {.s = s, .end = p + step < w->n_panel ? p + step : w->n_panel, .next = p};
        j.piece = (int32_t)(PIECE_BYTES / w->panel_bytes) + 1;
        want_ahead(ld);
        pool_run(ld->m->b->pool, pack_pieces, &j);
        int32_t row0 = p * PANEL, row1 = j.end * PANEL < w->n_out ? j.end * PANEL : w->n_out;
        int rc = finish(ld, s, row_bytes * (size_t)row0, row_bytes * (size_t)(row1 - row0));
        if (rc)
            return rc;
    }
    return 0;
}

static int fill_slot(struct loader *ld, const struct slot *s)
{
    if (s->matrix)
        return fill_matrix(ld, s);
    dtype_to_f32(s->from->type, s->from->data, *s->vector, s->from->n_col);
    return finish(ld, s, 0, s->from_bytes);
}

static int new_region(struct loader *ld)
{
    region_free(&ld->m->weights);
    int rc = region_create(&ld->m->weights, ld->slots.bytes, ld->e);
    if (rc)
        return rc;
    slots_place(&ld->slots, ld->m->weights.base);
    cpu_touch_near(ld->m, &ld->slots);
    return 0;
}

static int pack_all(struct loader *ld)
{
    int rc = new_region(ld);
    for (int32_t i = 0; !rc && i < ld->slots.n; i++)
        rc = fill_slot(ld, ld->slots.by_address[i]);
    return rc;
}

static int cache_step(void *arg, size_t bytes)
{
    struct loader *ld = arg;
    ld->done += bytes;
    if (ld->progress && ld->progress(ld->arg, ld->done, ld->slots.bytes))
        return err_set(ld->e, ERR_CANCELED, "loading was stopped");
    return 0;
}

/* From the cache, or else packed, for the cache and in a new region: weight_pack wants zeroed memory. */
static int fill(struct loader *ld)
{
    const struct backend *b = ld->m->b;
    const struct pack_cache cache = {
        .dir = b->opt.repack_cache, .source = ld->source, .slots = &ld->slots, .pool = b->pool};
    if (!cache.dir || !ld->source)
        return pack_all(ld);
    int rc = new_region(ld);
    if (!rc)
        rc = pack_cache_read(&cache, ld->m->weights.base, cache_step, ld);
    if (rc) {
        ld->m->from_cache = rc == 1;
        return rc == 1 ? 0 : rc;
    }
    ld->done = 0;
    rc = pack_all(ld);
    if (!rc)
        pack_cache_write(&cache, ld->m->weights.base);
    return rc;
}

/* What the layers need beside weights. */
static int look_at_layers(struct bmodel *m, const struct model_weights *w, struct err *e)
{
    m->n_kind = 1;
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        const struct layer_weights *y = &w->layer[l];
        if (m->d.layer_kind[l])
            m->n_kind = 2;
        if (y->post_attn_norm.data || y->post_ffn_norm.data || y->router.data)
            m->keeps_y = 1;
        if (!y->router.data)
            continue;
        m->layer[l].expert = mem_calloc((size_t)m->d.n_expert, sizeof *m->layer[l].expert);
        if (!m->layer[l].expert)
            return err_set(e, ERR_NOMEM, "out of memory");
    }
    return 0;
}

int cpu_load(struct backend *b, const struct model_desc *d, const struct model_weights *w, load_progress progress,
             void *arg, struct bmodel **out, struct err *e)
{
    *out = NULL;
    struct bmodel *m = mem_calloc(1, sizeof *m);
    if (m)
        m->layer = mem_calloc((size_t)d->n_layer, sizeof *m->layer);
    if (!m || !m->layer) {
        mem_free(m);
        return err_set(e, ERR_NOMEM, "out of memory");
    }
    m->b = b;
    m->d = *d;
    m->limits = b->opt.limits;
    m->limits.n_vocab = d->n_vocab;
    int rc = look_at_layers(m, w, e);
    struct loader ld = {.m = m, .source = w->source, .progress = progress, .arg = arg, .e = e};
    if (!rc)
        rc = slots_plan(&ld.slots, m, w, e);
    if (!rc)
        rc = fill(&ld);
    slots_free(&ld.slots);
    if (rc) {
        cpu_unload(m);
        return rc;
    }
    if (!m->out.data)
        m->out = m->tok_embd;
    *out = m;
    return 0;
}

void cpu_unload(struct bmodel *m)
{
    if (!m)
        return;
    cpu_kv_free(m);
    region_free(&m->weights);
    for (int32_t l = 0; l < m->d.n_layer; l++)
        mem_free(m->layer[l].expert);
    mem_free(m->layer);
    mem_free(m);
}
