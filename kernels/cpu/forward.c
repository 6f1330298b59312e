/* The forward pass, as every worker runs it (Llama, arXiv:2302.13971; Gemma 2, arXiv:2408.00118; OLMo 2,
 * arXiv:2501.00656; Qwen3, arXiv:2505.09388). */
#include <math.h>
#include <string.h>

#include "cpu.h"

enum { PIECES = 8 }; /* of each product, for a worker */

void cpu_share(const struct worker *w, int32_t n, int32_t *first, int32_t *end)
{
    int32_t all = pool_size(w->m->b->pool);
    *first = (int32_t)((int64_t)n * w->id / all);
    *end = (int32_t)((int64_t)n * (w->id + 1) / all);
}

int cpu_take(const struct worker *w, atomic_int *ticket, int32_t n, int32_t *first, int32_t *end)
{
    const struct placement *place = &w->m->b->place;
    int32_t n_piece = PIECES * place->n_worker, piece = n / n_piece;
    piece = place->n_worker == 1 ? n : (piece / PRODUCT_PANELS + 1) * PRODUCT_PANELS;
    for (int32_t i = 0; i < place->n_node; i++) {
        int32_t k = (w->node + i) % place->n_node, from, to;
        placement_share(place, n, PRODUCT_PANELS, k, &from, &to);
        from += atomic_fetch_add_explicit(&ticket[k], piece, memory_order_relaxed);
        if (from < to) {
            *first = from;
            *end = from + piece < to ? from + piece : to;
            return 1;
        }
    }
    return 0;
}

/* ---- Moves and inputs ---- */

static void copy_slots(const struct bmodel *m, const struct kv_plane *p, int32_t layer, int32_t slot, int32_t n,
                       char **staging, int store)
{
    for (int32_t i = slot; i < slot + n; i++)
        for (int32_t h = 0; h < m->d.n_head_kv; h++) {
            struct lane at = kv_at(m, p, layer, h, i), staged = {*staging, 1, 1, 0};
            lane_copy(p->type, m->d.head_dim, store ? staged : at, store ? at : staged);
            *staging += p->row;
        }
}

/* All moves read their sources before any writes. */
static void move_layer(const struct worker *w, const struct kv_plane *p, int32_t layer)
{
    const struct step_plan *plan = w->m->plan;
    char *at = w->staging;
    for (int32_t i = 0; i < plan->n.n_kvop; i++)
        copy_slots(w->m, p, layer, plan->kvop[i].src, plan->kvop[i].n, &at, 0);
    at = w->staging;
    for (int32_t i = 0; i < plan->n.n_kvop; i++)
        copy_slots(w->m, p, layer, plan->kvop[i].dst, plan->kvop[i].n, &at, 1);
}

static void move_hidden(const struct worker *w)
{
    const struct step_plan *p = w->m->plan;
    size_t row = sizeof *w->m->plane * (size_t)w->m->d.n_embd;
    char *plane = (char *)w->m->plane, *at = w->staging;
    for (int32_t i = 0; i < p->n.n_kvop; at += row * (size_t)p->kvop[i].n, i++)
        memcpy(at, plane + row * (size_t)p->kvop[i].src, row * (size_t)p->kvop[i].n);
    at = w->staging;
    for (int32_t i = 0; i < p->n.n_kvop; at += row * (size_t)p->kvop[i].n, i++)
        memcpy(plane + row * (size_t)p->kvop[i].dst, at, row * (size_t)p->kvop[i].n);
}

static void move_slots(const struct worker *w)
{
    const struct bmodel *m = w->m;
    int32_t first, end;
    if (!m->plan->n.n_kvop)
        return;
    cpu_share(w, m->d.n_layer, &first, &end);
    for (int32_t l = first; l < end; l++) {
        move_layer(w, &m->k, l);
        move_layer(w, &m->v, l);
    }
    if (m->plane && w->id == 0)
        move_hidden(w);
}

static void embed_token(const struct bmodel *m, int32_t token, float *x)
{
    weight_row(&m->tok_embd, token, x);
    if (m->d.embd_scale != 1)
        for (int32_t i = 0; i < m->d.n_embd; i++)
            x[i] *= m->d.embd_scale;
}

static void embed_row(const struct worker *w, int32_t r)
{
    const struct bmodel *m = w->m;
    const struct step_plan *p = m->plan;
    size_t n = (size_t)m->d.n_embd;
    float *x = m->x + (size_t)r * n;
    if (p->tok[r] >= 0) {
        embed_token(m, p->tok[r], x);
        return;
    }
    const struct mix *mix = &p->mix[ROW_MIX(p->tok[r])];
    memset(x, 0, n * sizeof *x);
    for (int32_t j = mix->part0; j < mix->part0 + mix->n_part; j++) {
        const float *from = m->bank + (size_t)p->part[j].src * n;
        if (!mix->from_bank) {
            embed_token(m, p->part[j].src, w->tmp);
            from = w->tmp;
        }
        for (size_t i = 0; i < n; i++)
            x[i] += p->part[j].weight * from[i];
    }
}

static void rope_angles(const struct bmodel *m, int32_t r, int kind)
{
    const struct model_desc *d = &m->d;
    const float *inv_freq = model_inv_freq(d, kind);
    float *out = cpu_angles(m, r, kind), mscale = model_mscale(d, kind);
    for (int32_t i = 0; i < d->rope_dim / 2; i++) {
        float angle = (float)m->plan->pos[r] * inv_freq[i];
        out[2 * i] = cosf(angle) * mscale;
        out[2 * i + 1] = sinf(angle) * mscale;
    }
}

static void begin_rows(const struct worker *w)
{
    int32_t first, end;
    cpu_share(w, w->m->plan->n.n_row, &first, &end);
    for (int32_t r = first; r < end; r++) {
        embed_row(w, r);
        for (int kind = 0; kind < w->m->n_kind; kind++)
            rope_angles(w->m, r, kind);
    }
}

/* ---- Activations and products ---- */

void cpu_prepare_row(const struct worker *w, int32_t i, const float *x, int32_t n, const float *norm, int uses,
                     const struct acts *a)
{
    const struct bmodel *m = w->m;
    const struct cpu_isa *isa = m->b->isa;
    size_t stride;
    if (norm) {
        isa->rms_norm(x, norm, w->tmp, n, m->d.rms_eps);
        x = w->tmp;
    }
    for (enum act_kind kind = 0; kind < N_ACT; kind++)
        if (uses & 1 << kind) {
            union act_line *line = act_line_at(&a->kind[kind], i, &stride);
            isa->lines[kind](x, n, line, stride);
        }
}

const struct acts *cpu_prepare(struct worker *w, const float *x, size_t stride, int32_t n, const float *norm, int uses)
{
    struct bmodel *m = w->m;
    int own = w->n_row <= OWN_ROWS;
    struct acts a = own ? w->own : m->shared;
    int32_t first = 0, end = w->n_row;
    acts_begin(m->b->isa, &a, w->n_row, n);
    if (!own)
        cpu_share(w, w->n_row, &first, &end);
    for (int32_t i = first; i < end; i++)
        cpu_prepare_row(w, i, x + (size_t)w->row[i] * stride, n, norm, uses, &a);
    if (!own)
        pool_barrier(m->b->pool);
    w->acts = a;
    return &w->acts;
}

atomic_int *cpu_ticket(const struct worker *w, int32_t layer, enum ticket t)
{
    return &w->m->ticket[(layer * N_TICKET + (int32_t)t) * w->m->b->place.n_node];
}

static void product(struct worker *w, const struct product *p, int32_t p0, int32_t p1)
{
    struct product mine = *p;
    mine.acts = &w->acts;
    mine.row = w->row;
    product_run(w->m->b->isa, &mine, p0, p1, w->product_buf);
}

void cpu_product(struct worker *w, atomic_int *t, const struct product *p)
{
    int32_t p0, p1;
    while (cpu_take(w, t, p->w->n_panel, &p0, &p1))
        product(w, p, p0, p1);
}

void cpu_add_row(const struct worker *w, int32_t r, float *y, const float *post_norm)
{
    const struct bmodel *m = w->m;
    float *x = m->x + (size_t)r * (size_t)m->d.n_embd;
    if (post_norm)
        m->b->isa->rms_norm(y, post_norm, y, m->d.n_embd, m->d.rms_eps);
    for (int32_t i = 0; i < m->d.n_embd; i++)
        x[i] += y[i] * m->d.residual_scale;
}

static void add_rows(struct worker *w, const float *post_norm)
{
    int32_t first, end;
    cpu_share(w, w->n_row, &first, &end);
    for (int32_t i = first; i < end; i++)
        cpu_add_row(w, w->row[i], w->m->y + (size_t)w->row[i] * w->m->n_embd, post_norm);
}

/* x += the product: back into the residual stream; a norm in between wants the whole row. */
static void add_product(struct worker *w, atomic_int *t, const struct weight *y, const float *post_norm)
{
    struct bmodel *m = w->m;
    struct product p = {.w = y,
                        .out = m->x,
                        .stride = (size_t)m->d.n_embd,
                        .n_out = m->d.n_embd,
                        .scale = m->d.residual_scale,
                        .how = PRODUCT_ADD};
    if (post_norm)
        p = (struct product){.w = y, .out = m->y, .stride = m->n_embd};
    cpu_product(w, t, &p);
    if (post_norm) {
        pool_barrier(m->b->pool);
        add_rows(w, post_norm);
    }
}

/* The three products read the same activations, so their panels are handed out as one sequence. */
static void query_key_value(struct worker *w, atomic_int *t, const struct layer *y)
{
    struct bmodel *m = w->m;
    const struct product all[] = {
        {.w = &y->wq, .out = m->q, .stride = m->n_q, .bias = y->bq},
        {.w = &y->wk, .out = m->k_new, .stride = m->n_kv, .bias = y->bk},
        {.w = &y->wv, .out = m->v_new, .stride = m->n_kv, .bias = y->bv},
    };
    int32_t first, end;
    while (cpu_take(w, t, y->wq.n_panel + y->wk.n_panel + y->wv.n_panel, &first, &end))
        for (int i = 0, before = 0; i < 3; before += all[i].w->n_panel, i++) {
            int32_t p0 = first - before, p1 = end - before, n = all[i].w->n_panel;
            p0 = p0 > 0 ? p0 : 0;
            p1 = p1 < n ? p1 : n;
            if (p0 < p1)
                product(w, &all[i], p0, p1);
        }
}

/* Norms of whole rows of q and k. */
static void norm_queries_keys(const struct worker *w, const struct layer *y)
{
    const struct bmodel *m = w->m;
    int32_t first, end, dim = m->d.head_dim;
    cpu_share(w, w->n_row, &first, &end);
    for (int32_t i = first; i < end; i++) {
        float *q = m->q + (size_t)w->row[i] * m->n_q, *k = m->k_new + (size_t)w->row[i] * m->n_kv;
        m->b->isa->rms_norm(q, y->q_norm, q, m->d.n_head * dim, m->d.rms_eps);
        m->b->isa->rms_norm(k, y->k_norm, k, m->d.n_head_kv * dim, m->d.rms_eps);
    }
}

/* ---- Layers ---- */

static void layer_attention(struct worker *w, int32_t l)
{
    struct bmodel *m = w->m;
    const struct layer *y = &m->layer[l];
    cpu_prepare(w, m->x, (size_t)m->d.n_embd, m->d.n_embd, y->attn_norm,
                act_use(w->m->b->isa, &y->wq) | act_use(w->m->b->isa, &y->wk) | act_use(w->m->b->isa, &y->wv));
    query_key_value(w, cpu_ticket(w, l, TICKET_QKV), y);
    pool_barrier(m->b->pool);
    if (m->d.flags & MODEL_QK_NORM_ALL) {
        norm_queries_keys(w, y);
        pool_barrier(m->b->pool);
    }
    cpu_attend(w, l);
    pool_barrier(m->b->pool);
    cpu_prepare(w, m->q, m->n_q, y->wo.n_in, NULL, act_use(w->m->b->isa, &y->wo));
    add_product(w, cpu_ticket(w, l, TICKET_WO), &y->wo, y->post_attn_norm);
    pool_barrier(m->b->pool);
}

static void layer_ffn(struct worker *w, int32_t l)
{
    struct bmodel *m = w->m;
    const struct layer *y = &m->layer[l];
    cpu_prepare(w, m->x, (size_t)m->d.n_embd, m->d.n_embd, y->ffn_norm,
                act_use(w->m->b->isa, &y->gate) | act_use(w->m->b->isa, &y->up));
    cpu_product(w, cpu_ticket(w, l, TICKET_GLU),
                &(struct product){.w = &y->gate, .up = &y->up, .out = m->h, .stride = m->n_ff, .how = cpu_glu(m)});
    pool_barrier(m->b->pool);
    cpu_prepare(w, m->h, m->n_ff, m->d.n_ff, NULL, act_use(w->m->b->isa, &y->down));
    add_product(w, cpu_ticket(w, l, TICKET_DOWN), &y->down, y->post_ffn_norm);
    pool_barrier(m->b->pool);
}

/* The rows of the spans that this layer concerns. */
static void list_rows(struct worker *w, int32_t l)
{
    const struct step_plan *p = w->m->plan;
    w->n_row = 0;
    for (int32_t i = 0; i < p->n.n_span; i++)
        if (span_active(&p->span[i], l))
            for (int32_t r = p->span[i].row0; r < p->span[i].row0 + p->span[i].n_row; r++)
                w->row[w->n_row++] = r;
}

void cpu_forward(struct worker *w)
{
    struct bmodel *m = w->m;
    move_slots(w);
    begin_rows(w);
    pool_barrier(m->b->pool);
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        if (l == 0 || m->partial)
            list_rows(w, l);
        if (!w->n_row)
            continue;
        layer_attention(w, l);
        if (m->layer[l].expert)
            cpu_experts(w, l);
        else
            layer_ffn(w, l);
    }
}
