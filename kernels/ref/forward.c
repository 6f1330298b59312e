/* The forward pass of ref: reads like the model's definition (Llama, arXiv:2302.13971; Qwen3, arXiv:2505.09388). */
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

static void rope(const struct model_desc *d, float *head, int32_t pos)
{
    int32_t half = d->rope_dim / 2;
    for (int32_t i = 0; i < half; i++) {
        float angle = (float)pos * d->rope_inv_freq[i];
        float c = cosf(angle) * d->rope_mscale, s = sinf(angle) * d->rope_mscale;
        float *a = d->flags & MODEL_NEOX_ROPE ? &head[i] : &head[2 * i];
        float *b = d->flags & MODEL_NEOX_ROPE ? &head[i + half] : &head[2 * i + 1];
        float x = *a, y = *b;
        *a = x * c - y * s;
        *b = x * s + y * c;
    }
}

/* Query and key heads: optional norm, then rotation. */
static void finish_heads(const struct model_desc *d, float *head, int32_t n_head, const float *norm, int32_t pos)
{
    for (int32_t h = 0; h < n_head; h++, head += d->head_dim) {
        if (norm)
            ref_rms_norm(head, norm, head, d->head_dim, d->rms_eps);
        rope(d, head, pos);
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
    visible_of(p, s, r, d->sliding_window, &vis);
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
            m->score[j] = (float)(dot * d->attn_scale);
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
    int32_t n_q = d->n_head * d->head_dim, n_kv = d->n_head_kv * d->head_dim;
    float *h = m->tmp, *q = h + d->n_embd, *k = q + n_q, *v = k + n_kv, *o = v + n_kv, *kv_row = o + n_q;

    /* All rows of the span write before any reads: a row sees itself and the rows before it as stored. */
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        int32_t slot = span_slot(p, s, m->kv.block_len, row_slot(s, r));
        ref_rms_norm(m->x + (size_t)r * (size_t)d->n_embd, w->attn_norm, h, d->n_embd, d->rms_eps);
        ref_matvec(w->wk, w->bk, h, k, n_kv, d->n_embd);
        ref_matvec(w->wv, w->bv, h, v, n_kv, d->n_embd);
        finish_heads(d, k, d->n_head_kv, w->k_norm, p->pos[r]);
        dtype_from_f32(m->kv.k_type, k, kv_at(m, m->k, m->k_row, layer, slot), n_kv);
        dtype_from_f32(m->kv.v_type, v, kv_at(m, m->v, m->v_row, layer, slot), n_kv);
    }
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        float *x = m->x + (size_t)r * (size_t)d->n_embd;
        ref_rms_norm(x, w->attn_norm, h, d->n_embd, d->rms_eps);
        ref_matvec(w->wq, w->bq, h, q, n_q, d->n_embd);
        finish_heads(d, q, d->n_head, w->q_norm, p->pos[r]);
        attend(m, p, s, r, layer, q, o, kv_row);
        ref_matvec(w->wo, NULL, o, h, d->n_embd, n_q);
        for (int32_t i = 0; i < d->n_embd; i++)
            x[i] += h[i];
    }
}

static void layer_ffn(struct bmodel *m, const struct span *s, int32_t layer)
{
    const struct model_desc *d = &m->d;
    const struct ref_layer *w = &m->layer[layer];
    float *h = m->tmp, *gate = h + d->n_embd, *up = gate + d->n_ff;
    for (int32_t r = s->row0; r < s->row0 + s->n_row; r++) {
        float *x = m->x + (size_t)r * (size_t)d->n_embd;
        ref_rms_norm(x, w->ffn_norm, h, d->n_embd, d->rms_eps);
        ref_matvec(w->gate, NULL, h, gate, d->n_ff, d->n_embd);
        ref_matvec(w->up, NULL, h, up, d->n_ff, d->n_embd);
        for (int32_t i = 0; i < d->n_ff; i++)
            gate[i] = gate[i] / (1 + expf(-gate[i])) * up[i];
        ref_matvec(w->down, NULL, gate, h, d->n_embd, d->n_ff);
        for (int32_t i = 0; i < d->n_embd; i++)
            x[i] += h[i];
    }
}

static void embed_row(struct bmodel *m, const struct step_plan *p, int32_t r)
{
    size_t n = (size_t)m->d.n_embd;
    float *x = m->x + (size_t)r * n;
    if (p->tok[r] >= 0) {
        memcpy(x, m->tok_embd + (size_t)p->tok[r] * n, n * sizeof *x);
        return;
    }
    const struct mix *mix = &p->mix[ROW_MIX(p->tok[r])];
    const float *table = mix->from_bank ? m->bank : m->tok_embd;
    memset(x, 0, n * sizeof *x);
    for (int32_t j = mix->part0; j < mix->part0 + mix->n_part; j++)
        for (size_t i = 0; i < n; i++)
            x[i] += p->part[j].weight * table[(size_t)p->part[j].src * n + i];
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
