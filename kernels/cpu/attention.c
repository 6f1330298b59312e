/* Attention as work for the workers: heads are finished and stored, then each chunk of rows meets each KV head. */
#include "cpu.h"
#include "visible.h"

/* The segments that hold the positions which some row of the chunk sees. */
static void find_segments(const struct bmodel *m, struct chunk *c)
{
    int32_t first = INT32_MAX, end = 0;
    for (int32_t r = c->row0; r < c->row0 + c->n_row; r++) {
        struct visible v;
        visible_of(m->plan, &m->plan->span[c->span], r, m->d.sliding_window, &v);
        first = v.first_pos < first ? v.first_pos : first;
        end = v.first_pos + v.n_prefix + v.n_tail > end ? v.first_pos + v.n_prefix + v.n_tail : end;
    }
    c->segment = first / SEGMENT;
    c->segment_end = (end + SEGMENT - 1) / SEGMENT;
}

/* Attention's work list: each span in pieces of a few rows. */
void cpu_plan_attention(struct bmodel *m)
{
    const struct step_plan *p = m->plan;
    int32_t most = attend_rows(m->d.n_head / m->d.n_head_kv);
    m->n_chunk = m->partial = m->split_spans = 0;
    for (int32_t i = 0; i < p->n.n_span; i++) {
        const struct span *s = &p->span[i];
        int whole = s->n_row <= most;
        m->partial |= s->layer0 > 0 || s->layer1 < m->d.n_layer;
        m->split_spans |= !whole;
        for (int32_t r = 0; r < s->n_row; r += most) {
            struct chunk *c = &m->chunk[m->n_chunk++];
            *c = (struct chunk){
                .span = i, .row0 = s->row0 + r, .n_row = s->n_row - r < most ? s->n_row - r : most, .whole = whole};
            find_segments(m, c);
        }
    }
}

static void rotate(const struct bmodel *m, float *head, const float *angle)
{
    int32_t half = m->d.rope_dim / 2;
    int neox = m->d.flags & MODEL_NEOX_ROPE;
    for (int32_t i = 0; i < half; i++) {
        float c = angle[2 * i], s = angle[2 * i + 1];
        float *a = neox ? &head[i] : &head[2 * i], *b = neox ? &head[i + half] : &head[2 * i + 1];
        float x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

/* Query or key heads of one row: optional norm, then rotation. */
static void finish_heads(const struct bmodel *m, int32_t row, float *head, int32_t n_head, const float *norm)
{
    const float *angle = m->rope + (size_t)row * (size_t)(m->d.rope_dim / 2 * 2);
    for (int32_t h = 0; h < n_head; h++, head += m->d.head_dim) {
        if (norm)
            m->b->isa->rms_norm(head, norm, head, m->d.head_dim, m->d.rms_eps);
        rotate(m, head, angle);
    }
}

static void store(const struct bmodel *m, const struct kv_plane *p, struct lane to, const float *x)
{
    char plain[sizeof(float) * MODEL_MAX_HEAD_DIM];
    m->b->isa->kv_store(p->type, x, plain, m->d.head_dim);
    lane_copy(p->type, m->d.head_dim, (struct lane){plain, 1, 1, 0}, to);
}

static void store_key_value(const struct bmodel *m, int32_t l, const struct span *s, int32_t row, int32_t head)
{
    int32_t slot = span_slot(m->plan, s, m->kv.block_len, row_slot(s, row)), dim = m->d.head_dim;
    float *k = m->k_new + (size_t)row * m->n_kv + head * dim, *v = m->v_new + (size_t)row * m->n_kv + head * dim;
    finish_heads(m, row, k, 1, m->layer[l].k_norm);
    store(m, &m->k, kv_at(m, &m->k, l, head, slot), k);
    store(m, &m->v, kv_at(m, &m->v, l, head, slot), v);
}

/* Spans of several chunks write all their keys before any chunk reads them. */
static void store_split_spans(const struct worker *w, int32_t l)
{
    const struct bmodel *m = w->m;
    int32_t first, end;
    cpu_share(w, m->n_chunk, &first, &end);
    for (int32_t i = first; i < end; i++) {
        const struct chunk *c = &m->chunk[i];
        const struct span *s = &m->plan->span[c->span];
        if (!c->whole && span_active(s, l))
            for (int32_t r = c->row0; r < c->row0 + c->n_row; r++)
                for (int32_t h = 0; h < m->d.n_head_kv; h++)
                    store_key_value(m, l, s, r, h);
    }
}

static struct kv_pages pages(const struct bmodel *m, const struct kv_plane *p, int32_t layer, int32_t head)
{
    return (struct kv_pages){kv_at(m, p, layer, head, 0).group, p->block, p->row, p->type, p->lanes, p->step};
}

static void attend_item(const struct worker *w, int32_t l, const struct chunk *c, int32_t head)
{
    struct bmodel *m = w->m;
    const struct model_desc *d = &m->d;
    const struct span *s = &m->plan->span[c->span];
    int32_t n_q = d->n_head / d->n_head_kv;
    float *q = m->q + (size_t)(head * n_q) * (size_t)d->head_dim;
    for (int32_t r = c->row0; r < c->row0 + c->n_row; r++) {
        if (c->whole)
            store_key_value(m, l, s, r, head);
        finish_heads(m, r, q + (size_t)r * m->n_q, n_q, m->layer[l].q_norm);
    }
    const struct attend_job job = {
        .plan = m->plan,
        .span = s,
        .row0 = c->row0,
        .n_row = c->n_row,
        .n_q = n_q,
        .dim = d->head_dim,
        .window = d->sliding_window,
        .scale = d->attn_scale,
        .q = q,
        .q_stride = m->n_q,
        .k = pages(m, &m->k, l, head),
        .v = pages(m, &m->v, l, head),
        .block_len = m->kv.block_len,
        .scratch = w->attend,
    };
    m->b->isa->attend(&job, c->segment, c->segment_end, w->partial);
    m->b->isa->attend_finish(&job, w->partial, 0, 0, 1);
}

/* Items differ in cost by their context, so workers take them one by one. */
static void attend_all(const struct worker *w, int32_t l)
{
    struct bmodel *m = w->m;
    int32_t n = m->n_chunk * m->d.n_head_kv, i;
    while ((i = atomic_fetch_add_explicit(cpu_ticket(w, l, TICKET_ATTEND), 1, memory_order_relaxed)) < n) {
        const struct chunk *c = &m->chunk[m->n_chunk - 1 - i / m->d.n_head_kv]; /* the longest of a prompt first */
        if (span_active(&m->plan->span[c->span], l))
            attend_item(w, l, c, i % m->d.n_head_kv);
    }
}

void cpu_attend(struct worker *w, int32_t l)
{
    struct bmodel *m = w->m;
    if (m->split_spans) {
        store_split_spans(w, l);
        pool_barrier(m->b->pool);
    }
    attend_all(w, l);
}
