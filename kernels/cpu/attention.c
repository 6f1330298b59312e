/* Attention as work for the workers. Each span's rows are cut into chunks, and an item is a chunk's rows with one KV
 * head. Where items are few or one of them is long, it is cut into runs of segments as well, and whoever is done last
 * merges what the runs left: segments and how they merge are properties of positions (simd/merge.h), so that no bit
 * depends on the cut. */
#include "cpu.h"
#include "visible.h"

enum { ITEMS = 8 }; /* for each worker, at least, where contexts are long enough */

int32_t cpu_n_partial(const struct bmodel *m)
{
    int32_t n_worker = pool_size(m->b->pool);
    return n_worker == 1 ? 0 : ITEMS * n_worker + 4 * m->d.n_head_kv; /* a run may be short at either end */
}

/* ---- The work list ---- */

/* The segments that hold the positions which some row of the chunk sees. */
static void find_segments(const struct bmodel *m, int kind, struct chunk *c)
{
    int32_t first = INT32_MAX, end = 0;
    for (int32_t r = c->row0; r < c->row0 + c->n_row; r++) {
        struct visible v;
        visible_of(m->plan, &m->plan->span[c->span], r, model_window(&m->d, kind), &v);
        first = v.first_pos < first ? v.first_pos : first;
        end = v.first_pos + v.n_prefix + v.n_tail > end ? v.first_pos + v.n_prefix + v.n_tail : end;
    }
    c->segment = first / SEGMENT;
    c->segment_end = (end + SEGMENT - 1) / SEGMENT;
}

static void cut_spans(const struct bmodel *m, int kind, struct attend_plan *a)
{
    const struct step_plan *p = m->plan;
    int32_t most = attend_rows(m->d.n_head / m->d.n_head_kv);
    a->n_chunk = 0;
    for (int32_t i = 0; i < p->n.n_span; i++) {
        const struct span *s = &p->span[i];
        for (int32_t r = 0; r < s->n_row; r += most) {
            struct chunk *c = &a->chunk[a->n_chunk++];
            *c = (struct chunk){.span = i,
                                .row0 = s->row0 + r,
                                .n_row = s->n_row - r < most ? s->n_row - r : most,
                                .whole = s->n_row <= most,
                                .n_run = 1};
            find_segments(m, kind, c);
        }
    }
}

/* Runs of 2^bits segments, as long as they may be where every worker is to have some. */
static int32_t run_bits(const struct bmodel *m, const struct attend_plan *a)
{
    int64_t n = 0, bits = 0;
    for (int32_t i = 0; i < a->n_chunk; i++)
        n += (int64_t)(a->chunk[i].segment_end - a->chunk[i].segment) * m->d.n_head_kv;
    while (n > (int64_t)ITEMS * pool_size(m->b->pool) << bits)
        bits++;
    return (int32_t)bits;
}

static void cut_chunks(const struct bmodel *m, struct attend_plan *a)
{
    int32_t bits = run_bits(m, a), n_head = m->d.n_head_kv, used = 0;
    for (int32_t i = a->n_chunk - 1; i >= 0; i--) {
        struct chunk *c = &a->chunk[i];
        int32_t n = ((c->segment_end - 1) >> bits) - (c->segment >> bits) + 1;
        if (n == 1 || used + n * n_head > cpu_n_partial(m))
            continue;
        c->n_run = n;
        c->run_bits = bits;
        c->partial0 = used;
        c->whole = 0;
        used += n * n_head;
    }
    for (int32_t i = 0; i < used; i++)
        atomic_store_explicit(&a->n_done[i], 0, memory_order_relaxed);
    a->prepare = 0;
    for (int32_t i = 0; i < a->n_chunk; i++)
        a->prepare |= !a->chunk[i].whole;
}

void cpu_plan_attention(struct bmodel *m)
{
    const struct step_plan *p = m->plan;
    m->partial = 0;
    for (int32_t i = 0; i < p->n.n_span; i++)
        m->partial |= p->span[i].layer0 > 0 || p->span[i].layer1 < m->d.n_layer;
    for (int kind = 0; kind < m->n_kind; kind++) {
        cut_spans(m, kind, &m->attend[kind]);
        cut_chunks(m, &m->attend[kind]);
    }
}

static const struct attend_plan *plan_of(const struct bmodel *m, int32_t layer)
{
    return &m->attend[m->d.layer_kind[layer]];
}

/* ---- Heads ---- */

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
static void finish_heads(const struct bmodel *m, int32_t l, int32_t row, float *head, int32_t n_head, const float *norm)
{
    const float *angle = cpu_angles(m, row, m->d.layer_kind[l]);
    for (int32_t h = 0; h < n_head; h++, head += m->d.head_dim) {
        if (m->d.flags & MODEL_QK_NORM)
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
    finish_heads(m, l, row, k, 1, m->layer[l].k_norm);
    store(m, &m->k, kv_at(m, &m->k, l, head, slot), k);
    store(m, &m->v, kv_at(m, &m->v, l, head, slot), v);
}

static int32_t group_size(const struct bmodel *m)
{
    return m->d.n_head / m->d.n_head_kv;
}

/* The first of the query heads that share a KV head, of the plan's row 0. */
static float *group_q(const struct bmodel *m, int32_t head)
{
    return m->q + (size_t)(head * group_size(m)) * (size_t)m->d.head_dim;
}

static void prepare(const struct bmodel *m, int32_t l, const struct chunk *c, int32_t head)
{
    for (int32_t r = c->row0; r < c->row0 + c->n_row; r++) {
        store_key_value(m, l, &m->plan->span[c->span], r, head);
        finish_heads(m, l, r, group_q(m, head) + (size_t)r * m->n_q, group_size(m), m->layer[l].q_norm);
    }
}

/* What several items read must be there before any of them begins. */
static void prepare_shared(const struct worker *w, int32_t l)
{
    const struct bmodel *m = w->m;
    const struct attend_plan *a = plan_of(m, l);
    int32_t first, end, n_head = m->d.n_head_kv;
    cpu_share(w, a->n_chunk * n_head, &first, &end);
    for (int32_t i = first; i < end; i++) {
        const struct chunk *c = &a->chunk[i / n_head];
        if (!c->whole && span_active(&m->plan->span[c->span], l))
            prepare(m, l, c, i % n_head);
    }
}

/* ---- Items ---- */

static struct kv_pages pages(const struct bmodel *m, const struct kv_plane *p, int32_t layer, int32_t head)
{
    return (struct kv_pages){.data = kv_at(m, p, layer, head, 0).group,
                             .block = p->block,
                             .row = p->row,
                             .type = p->type,
                             .lanes = p->lanes,
                             .step = p->step};
}

static void attend_whole(const struct worker *w, const struct chunk *c, const struct attend_job *job)
{
    const struct cpu_isa *isa = w->m->b->isa;
    isa->attend(job, c->segment, c->segment_end, w->partial);
    isa->attend_finish(job, w->partial, 0, 0, 1);
}

static void attend_run(const struct worker *w, int32_t l, const struct chunk *c, const struct attend_job *job,
                       int32_t head, int32_t run)
{
    const struct bmodel *m = w->m;
    const struct cpu_isa *isa = m->b->isa;
    size_t stride = attend_partial(job->n_q, job->dim);
    int32_t number0 = c->segment >> c->run_bits, number = number0 + run, at = c->partial0 + head * c->n_run;
    int32_t first = number << c->run_bits, end = (number + 1) << c->run_bits;
    isa->attend(job, first > c->segment ? first : c->segment, end < c->segment_end ? end : c->segment_end,
                m->run + (size_t)(at + run) * stride);
    if (atomic_fetch_add_explicit(&plan_of(m, l)->n_done[at], 1, memory_order_acq_rel) % c->n_run == c->n_run - 1)
        isa->attend_finish(job, m->run + (size_t)at * stride, stride, number0, c->n_run);
}

static void attend_item(const struct worker *w, int32_t l, const struct chunk *c, int32_t head, int32_t run)
{
    const struct bmodel *m = w->m;
    const struct attend_job job = {
        .plan = m->plan,
        .span = &m->plan->span[c->span],
        .row0 = c->row0,
        .n_row = c->n_row,
        .n_q = group_size(m),
        .dim = m->d.head_dim,
        .window = model_window(&m->d, m->d.layer_kind[l]),
        .scale = m->d.attn_scale,
        .softcap = m->d.attn_softcap,
        .q = group_q(m, head),
        .q_stride = m->n_q,
        .k = pages(m, &m->k, l, head),
        .v = pages(m, &m->v, l, head),
        .block_len = m->kv.block_len,
        .scratch = w->attend,
    };
    if (c->whole)
        prepare(m, l, c, head);
    if (c->n_run == 1)
        attend_whole(w, c, &job);
    else
        attend_run(w, l, c, &job, head, run);
}

/* Items differ in cost by their context, so workers take them one by one, a prompt's last and longest first. */
static void attend_all(const struct worker *w, int32_t l)
{
    const struct bmodel *m = w->m;
    const struct attend_plan *a = plan_of(m, l);
    int32_t n_head = m->d.n_head_kv, before = 0, i = a->n_chunk - 1;
    for (;;) {
        int32_t t = atomic_fetch_add_explicit(cpu_ticket(w, l, TICKET_ATTEND), 1, memory_order_relaxed);
        for (; i >= 0 && t - before >= a->chunk[i].n_run * n_head; i--)
            before += a->chunk[i].n_run * n_head;
        if (i < 0)
            return;
        if (span_active(&m->plan->span[a->chunk[i].span], l))
            attend_item(w, l, &a->chunk[i], (t - before) % n_head, (t - before) / n_head);
    }
}

void cpu_attend(struct worker *w, int32_t l)
{
    if (plan_of(w->m, l)->prepare) {
        prepare_shared(w, l);
        pool_barrier(w->m->b->pool);
    }
    attend_all(w, l);
}
