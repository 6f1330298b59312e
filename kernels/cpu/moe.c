/* A mixture of experts (Mixtral, arXiv:2401.04088) over all rows of a layer. Each row chooses its experts from its own
 * router's output alone; the rows of an expert then go through the same products as any rows, so that what a row gets
 * depends neither on who shares an expert with it nor on how many. Its experts' results are added likeliest first. */
#include <math.h>
#include <string.h>

#include "cpu.h"

/* ---- Routes ---- */

/* The experts of one row and their shares of its result. Equal logits: the first expert. */
static void choose(const struct model_desc *d, const float *route, int32_t *expert, float *share)
{
    float logit[MODEL_MAX_EXPERT], top = 0, sum = 0;
    memcpy(logit, route, sizeof *logit * (size_t)d->n_expert);
    for (int32_t j = 0; j < d->n_expert_used; j++) {
        int32_t best = 0;
        for (int32_t i = 1; i < d->n_expert; i++)
            if (logit[i] > logit[best])
                best = i;
        top = j ? top : logit[best];
        expert[j] = best;
        share[j] = expf(logit[best] - top);
        sum += share[j];
        logit[best] = -INFINITY;
    }
    if (!(d->flags & MODEL_EXPERT_SUM_1)) /* shares of the whole distribution */
        for (int32_t i = 0; i < d->n_expert; i++)
            sum += expf(logit[i] - top);
    for (int32_t j = 0; j < d->n_expert_used; j++)
        share[j] /= sum;
}

/* Every worker finds all routes itself: that is little work, and it spares a barrier. */
static void find_routes(struct worker *w)
{
    const struct bmodel *m = w->m;
    const struct model_desc *d = &m->d;
    struct routes *r = &w->routes;
    int32_t k = d->n_expert_used, n = w->n_row * k, before = 0;
    memset(r->first, 0, sizeof *r->first * (size_t)(d->n_expert + 1));
    for (int32_t i = 0; i < w->n_row; i++) {
        choose(d, m->route + (size_t)w->row[i] * m->n_expert, r->place + i * k, r->share + i * k);
        for (int32_t j = 0; j < k; j++)
            r->first[r->place[i * k + j]]++;
    }
    r->n_used = 0;
    for (int32_t x = 0; x <= d->n_expert; x++) { /* counts become where the next place of an expert is */
        int32_t of_x = r->first[x];
        if (of_x)
            r->used[r->n_used++] = x;
        r->first[x] = before;
        before += of_x;
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t at = r->first[r->place[i]]++;
        r->place[i] = at;
        r->row[at] = i / k;
    }
    for (int32_t x = d->n_expert; x > 0; x--) /* and then where its first was */
        r->first[x] = r->first[x - 1];
    r->first[0] = 0;
}

/* ---- Products ---- */

/* The activations of an expert's rows, each `n` elements long. */
static struct acts acts_of(const struct worker *w, int32_t expert, int32_t n)
{
    const struct bmodel *m = w->m;
    const struct routes *r = &w->routes;
    int32_t first = r->first[expert];
    struct acts a = m->expert_acts;
    acts_begin(m->b->isa, &a, r->first[expert + 1] - first, n);
    for (enum act_kind kind = 0; kind < N_ACT; kind++)
        a.kind[kind].line += (size_t)first * (size_t)a.kind[kind].n_line;
    return a;
}

/* Activations of the worker's share of places, whose inputs are rows of x (by_row) or lie place by place. */
static void prepare_places(const struct worker *w, int32_t l, const float *x, size_t stride, int32_t n,
                           const float *norm, int by_row)
{
    const struct cpu_isa *isa = w->m->b->isa;
    const struct layer *y = &w->m->layer[l];
    const struct routes *r = &w->routes;
    int32_t from, to;
    cpu_share(w, w->n_row * w->m->d.n_expert_used, &from, &to);
    for (int32_t u = 0; u < r->n_used; u++) {
        int32_t x_id = r->used[u], first = r->first[x_id], end = r->first[x_id + 1];
        if (end <= from || first >= to)
            continue;
        const struct expert *e = &y->expert[x_id];
        struct acts a = acts_of(w, x_id, n);
        int uses = by_row ? act_use(isa, &e->gate) | act_use(isa, &e->up) : act_use(isa, &e->down);
        for (int32_t p = first > from ? first : from; p < end && p < to; p++) {
            size_t at = (size_t)(by_row ? w->row[r->row[p]] : p);
            cpu_prepare_row(w, p - first, x + at * stride, n, norm, uses, &a);
        }
    }
}

/* The product of each expert in use with its rows, in one sequence of panels. */
static void products(struct worker *w, int32_t l, enum ticket t, int down)
{
    struct bmodel *m = w->m;
    const struct routes *r = &w->routes;
    const struct layer *y = &m->layer[l];
    int32_t n_panel = down ? y->expert[0].down.n_panel : y->expert[0].gate.n_panel, p0, p1;
    while (cpu_take(w, cpu_ticket(w, l, t), r->n_used * n_panel, &p0, &p1))
        for (int32_t p = p0, end; p < p1; p = end) {
            int32_t x = r->used[p / n_panel], before = p / n_panel * n_panel;
            end = before + n_panel < p1 ? before + n_panel : p1;
            const struct expert *e = &y->expert[x];
            struct acts a = acts_of(w, x, down ? m->d.n_ff_expert : m->d.n_embd);
            struct product glu = {
                .w = &e->gate, .up = &e->up, .out = m->h_expert, .stride = m->n_ff_expert, .how = cpu_glu(m)};
            struct product job = down ? (struct product){.w = &e->down, .out = m->y, .stride = m->n_embd} : glu;
            job.acts = &a;
            job.row = m->count + r->first[x];
            product_run(m->b->isa, &job, p - before, end - before, w->product_buf);
        }
}

/* ---- The layer ---- */

static void add_experts(const struct worker *w, const float *post_norm)
{
    const struct bmodel *m = w->m;
    const struct routes *r = &w->routes;
    int32_t first, end, k = m->d.n_expert_used;
    cpu_share(w, w->n_row, &first, &end);
    for (int32_t i = first; i < end; i++) {
        memset(w->tmp, 0, sizeof *w->tmp * (size_t)m->d.n_embd);
        for (int32_t j = i * k; j < (i + 1) * k; j++) {
            const float *y = m->y + (size_t)r->place[j] * m->n_embd;
            for (int32_t c = 0; c < m->d.n_embd; c++)
                w->tmp[c] += r->share[j] * y[c];
        }
        cpu_add_row(w, w->row[i], w->tmp, post_norm);
    }
}

void cpu_experts(struct worker *w, int32_t l)
{
    struct bmodel *m = w->m;
    struct pool *pool = m->b->pool;
    const struct layer *y = &m->layer[l];
    cpu_prepare(w, m->x, (size_t)m->d.n_embd, m->d.n_embd, y->ffn_norm, act_use(w->m->b->isa, &y->router));
    cpu_product(w, cpu_ticket(w, l, TICKET_ROUTE),
                &(struct product){.w = &y->router, .out = m->route, .stride = m->n_expert});
    pool_barrier(pool);
    find_routes(w);
    prepare_places(w, l, m->x, (size_t)m->d.n_embd, m->d.n_embd, y->ffn_norm, 1);
    pool_barrier(pool);
    products(w, l, TICKET_GLU, 0);
    pool_barrier(pool);
    prepare_places(w, l, m->h_expert, m->n_ff_expert, m->d.n_ff_expert, NULL, 0);
    pool_barrier(pool);
    products(w, l, TICKET_DOWN, 1);
    pool_barrier(pool);
    add_experts(w, y->post_ffn_norm);
    pool_barrier(pool);
}
