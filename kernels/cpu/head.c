/* What a step returns: hidden states, similarities, and readouts of logits, which are computed once for each row that a
 * readout asks about. */
#include <math.h>
#include <string.h>

#include "cpu.h"
#include "visible.h"

static int needs_logits(const struct readout *r)
{
    return r->kind != READ_HIDDEN && r->kind != READ_CONTRAST;
}

/* Lists each row's readouts of logits in plan order, so that one worker does them all and the law is applied once. */
void cpu_plan_heads(struct bmodel *m)
{
    const struct step_plan *p = m->plan;
    m->n_head_row = 0;
    for (int32_t r = 0; r < p->n.n_row; r++)
        m->first_read[r] = -1;
    for (int32_t i = p->n.n_readout - 1; i >= 0; i--) {
        const struct readout *r = &p->readout[i];
        if (!needs_logits(r))
            continue;
        if (m->first_read[r->row] < 0)
            m->head_row[m->n_head_row++] = r->row;
        m->next_read[i] = m->first_read[r->row];
        m->first_read[r->row] = i;
    }
}

static uint16_t *plane_at(const struct bmodel *m, const struct span *s, int32_t seq_slot)
{
    return m->plane + (size_t)m->d.n_embd * (size_t)span_slot(m->plan, s, m->kv.block_len, seq_slot);
}

/* Normalised final hidden states at unit length, for READ_CONTRAST of this step and later ones. */
static void fill_plane(struct worker *w)
{
    const struct bmodel *m = w->m;
    const struct cpu_isa *isa = m->b->isa;
    int32_t n = m->d.n_embd, first, end;
    cpu_share(w, m->plan->n.n_row, &first, &end);
    for (int32_t r = first; r < end; r++) {
        const struct span *s = plan_span_of(m->plan, r);
        isa->rms_norm(m->x + (size_t)r * (size_t)n, m->out_norm, w->tmp, n, m->d.rms_eps);
        float scale = 1 / sqrtf(isa->dot(w->tmp, w->tmp, n));
        for (int32_t i = 0; i < n; i++)
            w->tmp[i] *= scale;
        isa->kv_store(DT_F16, w->tmp, plane_at(m, s, row_slot(s, r)), n);
    }
}

static float contrast(const struct bmodel *m, const struct span *s, int32_t row)
{
    const uint16_t *own = plane_at(m, s, row_slot(s, row));
    struct visible vis;
    visible_of(m->plan, s, row, 0, &vis);
    float best = -1;
    for (int32_t j = 0; j < vis.n_prefix + vis.n_tail; j++) {
        int32_t slot = visible_slot(&vis, j);
        if (slot != row_slot(s, row))
            best = fmaxf(best, m->b->isa->dot_f16(own, plane_at(m, s, slot), m->d.n_embd));
    }
    return best;
}

static void read_hidden(struct worker *w)
{
    const struct bmodel *m = w->m;
    const struct step_plan *p = m->plan;
    int32_t first, end;
    cpu_share(w, p->n.n_readout, &first, &end);
    for (int32_t i = first; i < end; i++) {
        const struct readout *r = &p->readout[i];
        const float *x = m->x + (size_t)r->row * (size_t)m->d.n_embd;
        if (r->kind == READ_CONTRAST)
            m->result->f[r->f0] = contrast(m, plan_span_of(p, r->row), r->row);
        else if (r->kind == READ_HIDDEN && r->bank >= 0)
            memcpy(m->bank + (size_t)r->bank * (size_t)m->d.n_embd, x, sizeof *x * (size_t)m->d.n_embd);
        else if (r->kind == READ_HIDDEN)
            m->b->isa->rms_norm(x, m->out_norm, m->result->f + r->f0, m->d.n_embd, m->d.rms_eps);
    }
}

static void finish_logits(const struct bmodel *m, float *logits)
{
    const struct model_desc *d = &m->d;
    if (d->logit_softcap > 0)
        m->b->isa->soft_cap(logits, d->n_vocab, d->logit_scale, d->logit_softcap);
    else if (d->logit_scale != 1)
        for (int32_t i = 0; i < d->n_vocab; i++)
            logits[i] *= d->logit_scale;
}

/* Logits of head rows from..from+n-1, then their readouts. */
static void read_rows(struct worker *w, int32_t from, int32_t n)
{
    struct bmodel *m = w->m;
    int32_t p0, p1, at[HEAD_ROWS];
    w->n_row = n;
    for (int32_t i = 0; i < n; i++) {
        w->row[i] = m->head_row[from + i];
        at[i] = i;
    }
    const struct acts *a =
        cpu_prepare(w, m->x, (size_t)m->d.n_embd, m->d.n_embd, m->out_norm, act_use(w->m->b->isa, &m->out));
    const struct product p = {.w = &m->out, .acts = a, .row = at, .out = m->logits, .stride = m->n_vocab};
    atomic_int *ticket = &m->ticket[(m->d.n_layer * N_TICKET + from / HEAD_ROWS) * m->b->place.n_node];
    while (cpu_take(w, ticket, m->out.n_panel, &p0, &p1))
        product_run(m->b->isa, &p, p0, p1, w->product_buf);
    pool_barrier(m->b->pool);
    for (int32_t i = w->id; i < n; i += pool_size(m->b->pool)) {
        const struct span *s = plan_span_of(m->plan, w->row[i]);
        finish_logits(m, m->logits + (size_t)i * m->n_vocab);
        for (int32_t r = m->first_read[w->row[i]]; r >= 0; r = m->next_read[r])
            readout_logits(m->plan, s, &m->plan->readout[r], m->logits + (size_t)i * m->n_vocab, &w->readout,
                           m->result);
    }
}

void cpu_read_out(struct worker *w)
{
    struct bmodel *m = w->m;
    readout_begin(&w->readout);
    if (m->plane) {
        fill_plane(w);
        pool_barrier(m->b->pool);
    }
    read_hidden(w);
    for (int32_t i = 0; i < m->n_head_row; i += HEAD_ROWS) {
        if (i)
            pool_barrier(m->b->pool); /* the logits of the rows before have been read */
        read_rows(w, i, m->n_head_row - i < HEAD_ROWS ? m->n_head_row - i : HEAD_ROWS);
    }
}
