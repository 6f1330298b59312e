/* The forward pass of ref: reads like the model's definition (Llama, arXiv:2302.13971; Gemma 2, arXiv:2408.00118; OLMo
 * 2, arXiv:2501.00656; Qwen3, arXiv:2505.09388). */
#include <math.h>
#include <string.h>

#include "ref.h"
#include "visible.h"

void ref_rms_norm(const float *x, const float *weight, float *out, int32_t n, float eps)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(sum / n + (double)eps));
    for (int32_t i = 0; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

void ref_matvec(const float *w, const float *bias, const float *x, float *out, int32_t n_row, int32_t n_col)
{
    for (int32_t r = 0; r < n_row; r++) {
        const float *row = w + (size_t)r * (size_t)n_col;
        double sum = bias ? bias[r] : 0;
        for (int32_t c = 0; c < n_col; c++)
            sum += (double)row[c] * x[c];
        out[r] = (float)sum;
    }
}

float ref_soft_cap(float x, float cap)
{
    return cap > 0 ? cap * tanhf(x / cap) : x;
}

/* What goes into a half of a layer. */
static void norm_in(const struct model_desc *d, const float *x, const float *weight, float *out)
{
    if (weight)
        ref_rms_norm(x, weight, out, d->n_embd, d->rms_eps);
    else
        memcpy(out, x, sizeof *x * (size_t)d->n_embd);
}

/* What comes out of it, into the residual stream; `y` is overwritten. */
static void add_out(const struct model_desc *d, float *y, const float *post_norm, float *x)
{
    if (post_norm)
        ref_rms_norm(y, post_norm, y, d->n_embd, d->rms_eps);
    for (int32_t i = 0; i < d->n_embd; i++)
        x[i] += y[i] * d->residual_scale;
}

static void rope(const struct model_desc *d, int kind, float *head, int32_t pos)
{
    int32_t half = d->rope_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float angle = (float)pos * model_inv_freq(d, kind)[i];
        float c = cosf(angle) * model_mscale(d, kind), s = sinf(angle) * model_mscale(d, kind);
        float *a = d->flags & MODEL_NEOX_ROPE ? &head[i] : &head[2 * i];
        float *b = d->flags & MODEL_NEOX_ROPE ? &head[i + half] : &head[2 * i + 1];
        float x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

/* Query and key heads: optional norm, then rotation. */
static void finish_heads(const struct model_desc *d, int kind, float *head, int32_t n_head, const float *norm,
                         int32_t pos)
{
    if (norm && d->flags & MODEL_QK_NORM_ALL)
        ref_rms_norm(head, norm, head, n_head * d->head_dim, d->rms_eps);
    for (int32_t h = 0; h < n_head; h++, head += d->head_dim) {
        if (norm && d->flags & MODEL_QK_NORM)
            ref_rms_norm(head, norm, head, d->head_dim, d->rms_eps);
        rope(d, kind, head, pos);
    }
}

static char *kv_at(const struct bmodel *m, char *plane, size_t row_bytes, int32_t layer, int32_t slot)
{
    size_t n_slot = (size_t)m->kv.n_block * (size_t)m->kv.block_len;
    return plane + ((size_t)layer * n_slot + (size_t)slot) * row_bytes;
}

/* One row's attention over its visible keys, in position order. */
static void attend(struct bmodel *m, const struct step_plan *p, const struct span *s, int32_t r, int32_t layer,
                   const float *q, float *out, float *kv_row)
{
    const struct model_desc *d = &m->d;
    int32_t dim = d->head_dim, group = d->n_head / d->n_head_kv;
    struct visible vis;
    visible_of(p, s, r, model_window(d, d->layer_kind[layer]), &vis);
    int32_t n_key = vis.n_prefix + vis.n_tail;
    for (int32_t h = 0; h < d->n_head; h++) {
        const float *qh = q + (size_t)h * (size_t)dim;
        size_t kv_head = (size_t)(h / group) * (size_t)dim;
        float top = -INFINITY;
        for (int32_t j = 0; j < n_key; j++) {
            int32_t slot = span_slot(p, s, m->kv.block_len, visible_slot(&vis, j));
            dtype_to_f32(m->kv.k_type, kv_at(m, m->k, m->k_row, layer, slot), kv_row, d->n_head_kv * dim);
            double dot = 0;
            for (int32_t i = 0; i < dim; i++)
                dot += (double)qh[i] * kv_row[kv_head + (size_t)i];
            m->score[j] = ref_soft_cap((float)(dot * d->attn_scale), d->attn_softcap);
            top = fmaxf(top, m->score[j]);
        }
        double sum = 0, acc[MODEL_MAX_HEAD_DIM] = {0};
        for (int32_t j = 0; j < n_key; j++) {
            int32_t slot = span_slot(p, s, m->kv.block_len, visible_slot(&vis, j));
            dtype_to_f32(m->kv.v_type, kv_at(m, m->v, m->v_row, layer, slot), kv_row, d->n_head_kv * dim);
            double weight = exp((double)m->score[j] - top);
            sum += weight;
            for (int32_t i = 0; i < dim; i++)
                acc[i] += weight * kv_row[kv_head + (size_t)i];
        }
        for (int32_t i = 0; i < dim; i++)
            out[(size_t)h * (size_t)dim + (size_t)i] = (float)(acc[i] / sum);
    }
}

static void layer_attention(struct bmodel *m, const struct step_plan *p, const struct span *s, int32_t layer)
{
    const struct model_desc *d = &m->d;
    const struct ref_layer *w = &m->layer[layer];
    int32_t n_q = d->n_head * d->head_dim, n_kv = d->n_head_kv * d->head_dim, kind = d->layer_kind[layer];
    float *h = m->tmp, *q = h + d->n_embd, *k = q + n_q, *v = k + n_kv, *o = v + n_kv, *kv_row = o + n_q;

    /* All rows of the span write before any reads: a row sees itself and the rows before it as stored. */
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        int32_t slot = span_slot(p, s, m->kv.block_len, row_slot(s, r));
        norm_in(d, m->x + (size_t)r * (size_t)d->n_embd, w->attn_norm, h);
        ref_matvec(w->wk, w->bk, h, k, n_kv, d->n_embd);
        ref_matvec(w->wv, w->bv, h, v, n_kv, d->n_embd);
        finish_heads(d, kind, k, d->n_head_kv, w->k_norm, p->pos[r]);
        dtype_from_f32(m->kv.k_type, k, kv_at(m, m->k, m->k_row, layer, slot), n_kv);
        dtype_from_f32(m->kv.v_type, v, kv_at(m, m->v, m->v_row, layer, slot), n_kv);
    }
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        float *x = m->x + (size_t)r * (size_t)d->n_embd;
        norm_in(d, x, w->attn_norm, h);
        ref_matvec(w->wq, w->bq, h, q, n_q, d->n_embd);
        finish_heads(d, kind, q, d->n_head, w->q_norm, p->pos[r]);
        attend(m, p, s, r, layer, q, o, kv_row);
        ref_matvec(w->wo, NULL, o, h, d->n_embd, n_q);
        add_out(d, h, w->post_attn_norm, x);
    }
}

void ref_gated(const struct model_desc *d, const struct ref_ffn *w, const float *x, int32_t n_ff, float *tmp,
               float *out)
{
    float *gate = tmp, *up = gate + n_ff;
    ref_matvec(w->gate, NULL, x, gate, n_ff, d->n_embd);
    ref_matvec(w->up, NULL, x, up, n_ff, d->n_embd);
    for (int32_t i = 0; i < n_ff; i++) {
        float g = gate[i];
        if (d->flags & MODEL_GELU)
            g = 0.5f * g * (1 + tanhf(0.7978845608f * (g + 0.044715f * g * g * g))); /* sqrt(2 / pi) */
        else
            g = g / (1 + expf(-g));
        gate[i] = g * up[i];
    }
    ref_matvec(w->down, NULL, gate, out, d->n_embd, n_ff);
}

static void layer_ffn(struct bmodel *m, const struct span *s, int32_t layer)
{
    const struct model_desc *d = &m->d;
    const struct ref_layer *w = &m->layer[layer];
    float *h = m->tmp, *out = h + d->n_embd, *rest = out + d->n_embd;
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        float *x = m->x + (size_t)r * (size_t)d->n_embd;
        norm_in(d, x, w->ffn_norm, h);
        if (w->router)
            ref_experts(d, w, h, rest, out);
        else
            ref_gated(d, &w->ffn, h, d->n_ff, rest, out);
        add_out(d, out, w->post_ffn_norm, x);
    }
}

static void embed_row(struct bmodel *m, const struct step_plan *p, int32_t r)
{
    size_t n = (size_t)m->d.n_embd;
    float *x = m->x + (size_t)r * n;
    if (p->tok[r] >= 0) {
        for (size_t i = 0; i < n; i++)
            x[i] = m->tok_embd[(size_t)p->tok[r] * n + i] * m->d.embd_scale;
        return;
    }
    const struct mix *mix = &p->mix[ROW_MIX(p->tok[r])];
    const float *table = mix->from_bank ? m->bank : m->tok_embd;
    memset(x, 0, n * sizeof *x);
    for (int32_t j = mix->part0; j < mix->part0 + mix->n_part; j++)
        for (size_t i = 0; i < n; i++)
            x[i] += p->part[j].weight * table[(size_t)p->part[j].src * n + i];
    for (size_t i = 0; !mix->from_bank && i < n; i++)
        x[i] *= m->d.embd_scale;
}

static void move_plane(char *plane, size_t row_bytes, const struct step_plan *p, char *staging)
{
    char *at = staging;
    for (int32_t i = 0; i < p->n.n_kvop; i++) {
        size_t bytes = row_bytes * (size_t)p->kvop[i].n;
        memcpy(at, plane + row_bytes * (size_t)p->kvop[i].src, bytes);
        at += bytes;
    }
    at = staging;
    for (int32_t i = 0; i < p->n.n_kvop; i++) {
        size_t bytes = row_bytes * (size_t)p->kvop[i].n;
        memcpy(plane + row_bytes * (size_t)p->kvop[i].dst, at, bytes);
        at += bytes;
    }
}

static void move_slots(struct bmodel *m, const struct step_plan *p)
{
    if (!p->n.n_kvop)
        return;
    for (int32_t l = 0; l < m->d.n_layer; l++) {
        move_plane(kv_at(m, m->k, m->k_row, l, 0), m->k_row, p, m->staging);
        move_plane(kv_at(m, m->v, m->v_row, l, 0), m->v_row, p, m->staging);
    }
    if (m->plane)
        move_plane((char *)m->plane, sizeof *m->plane * (size_t)m->d.n_embd, p, m->staging);
}

void ref_forward(struct bmodel *m, const struct step_plan *p)
{
    move_slots(m, p);
    for (int32_t r = 0; r < p->n.n_row; r++)
        embed_row(m, p, r);
    for (int32_t l = 0; l < m->d.n_layer; l++)
        for (int32_t i = 0; i < p->n.n_span; i++)
            if (p->span[i].layer0 <= l && l < p->span[i].layer1) {
                layer_attention(m, p, &p->span[i], l);
                layer_ffn(m, &p->span[i], l);
            }
}
