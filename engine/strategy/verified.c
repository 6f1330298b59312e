#include "verified.h"

#include <math.h>

#include "strategy.h"
#include "verify/beam.h"
#include "verify/draft_law.h"
#include "verify/dyspec.h"

enum { OPTIMUM_EVERY = 64 }; /* steps: it is not cheap */

/* ---- Drafting ---- */

void verified_restart(struct seq *s)
{
    struct verified *v = s->verified;
    chance_philox(&v->chance, s->noise_key, seq_n_tok(s), NOISE_DRAFT);
    for (int32_t i = 0; i <= DRAFT_MAX; i++)
        v->node[i].n = v->node[i].n_drawn = v->node[i].asked = 0;
    v->path[0] = (struct path_value){.value = 1};
}

static int32_t draw_children(struct verified *v, struct drawn_node *d, int32_t width)
{
    const struct chance *c = &v->chance.chance;
    switch (v->law) {
    case DRAFT_IID:
        return draft_iid(d->q, d->n, width, c, d->drawn);
    case DRAFT_GREEDY:
        return draft_greedy(d->q, d->n, width, c, d->drawn);
    case DRAFT_CHAIN:
        return draft_iid(d->q, d->n, 1, c, d->drawn);
    default:
        return draft_wor(d->q, d->n, width, c, d->drawn);
    }
}

void verified_read(struct seq *s, int32_t node, const int32_t *tok, const float *logprob)
{
    struct drawn_node *d = &s->verified->node[node + 1];
    double sum = 0;
    d->n_drawn = 0;
    for (d->n = 0; d->n < VERIFIED_LIST && tok[d->n] >= 0; d->n++) {
        d->tok[d->n] = tok[d->n];
        sum += d->q[d->n] = exp(logprob[d->n]);
    }
    for (int32_t i = 0; i < d->n; i++)
        d->q[i] /= sum;
}

int32_t verified_draw(struct seq *s, int32_t node, const int32_t *tok, const float *logprob, int32_t width,
                      int32_t *drawn)
{
    struct drawn_node *d = &s->verified->node[node + 1];
    verified_read(s, node, tok, logprob);
    d->n_drawn = draw_children(s->verified, d, width < VERIFIED_WIDTH ? width : VERIFIED_WIDTH);
    int32_t n = 0;
    for (int32_t i = 0; i < d->n_drawn; i++) {
        bool again = false;
        for (int32_t k = 0; k < i; k++)
            again |= d->drawn[k] == d->drawn[i];
        if (!again)
            drawn[n++] = d->drawn[i];
    }
    return n;
}

/* ---- A depth at once ---- */

static int32_t append(struct verified *v, int32_t node, int32_t edge, struct path_value path, struct drawn_child *out)
{
    struct drawn_node *d = &v->node[node + 1];
    d->drawn[d->n_drawn++] = (int16_t)edge;
    *out = (struct drawn_child){.node = node, .tok = d->tok[edge], .p = d->q[edge], .path = path};
    return 1;
}

/* The `keep` paths that are drawn from all of this depth. How many of a node's children they are depends on values that
 * say nothing of which token would be next, so the law is that of draws without replacement (section 6). */
static int32_t draw_beam(struct verified *v, const int32_t *node, int32_t n, int32_t keep, struct drawn_child *out)
{
    struct beam_item item[DRAFT_MAX * VERIFIED_LIST];
    int32_t n_item = 0, n_out = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct path_value *p = &v->path[node[i] + 1];
        const struct drawn_node *d = &v->node[node[i] + 1];
        n_item = beam_expand((struct beam_item){.phi = p->phi, .psi = p->psi}, i, d->q, d->n, &v->chance.chance, item,
                             n_item);
    }
    n_item = beam_keep(item, n_item, keep);
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < n_item; k++)
            if (item[k].parent == i && v->node[node[i] + 1].n_drawn < VERIFIED_WIDTH)
                n_out += append(v, node[i], item[k].edge, (struct path_value){.phi = item[k].phi, .psi = item[k].psi},
                                &out[n_out]);
    return n_out;
}

/* As many draws at a node as its value is worth, a value at a time (section 7, the threshold variant). */
static int32_t draw_dyspec(struct verified *v, const int32_t *node, int32_t n, double least, int32_t room,
                           struct drawn_child *out)
{
    int32_t n_out = 0;
    for (int32_t i = 0; i < n && n_out < room; i++) {
        struct drawn_node *d = &v->node[node[i] + 1];
        int32_t most = room - n_out < VERIFIED_WIDTH ? room - n_out : VERIFIED_WIDTH;
        double value[VERIFIED_WIDTH];
        struct dyspec_row row = {.q = d->q, .n_list = d->n, .drawn = d->drawn};
        int32_t k = dyspec_fill(v->path[node[i] + 1].value, least, &row, most, value, &v->chance.chance);
        for (int32_t j = 0; j < k; j++) {
            int32_t edge = d->drawn[j];
            out[n_out++] = (struct drawn_child){
                .node = node[i], .tok = d->tok[edge], .p = d->q[edge], .path = {.value = value[j]}};
        }
        d->n_drawn = k;
    }
    return n_out;
}

int32_t verified_draw_depth(struct seq *s, const int32_t *node, int32_t n, int32_t width, int32_t room,
                            struct drawn_child *out)
{
    struct verified *v = s->verified;
    if (v->sampling == DECODE_SAMPLING_SBS)
        return draw_beam(v, node, n, width < room ? width : room, out);
    return draw_dyspec(v, node, n, v->threshold, room, out);
}

/* ---- Verifying ---- */

/* The root and the drafted rows are nodes 0, 1, ... of the verifier's tree. */
static const struct drawn_node *drawn_at(const struct seq *s, int32_t i)
{
    return &s->verified->node[i == 0 ? 0 : s->rows.node[i - 1] + 1];
}

int verified_plan(struct seq *s, struct step_plan *p, int32_t row0)
{
    int32_t n_top = s->req->p.n_logprobs;
    for (int32_t i = 0; i <= s->rows.n; i++) {
        const struct drawn_node *d = drawn_at(s, i);
        struct readout probe = {.kind = READ_PROBE, .raw = n_top >= 0, .row = row0 + i, .n = d->n, .bank = -1};
        struct readout top = {.kind = READ_TOPK, .raw = 1, .row = row0 + i, .n = n_top, .bank = -1};
        if (plan_readout(p, &probe, d->tok) < 0 || (n_top > 0 && plan_readout(p, &top, NULL) < 0))
            return -ERR_NOMEM;
    }
    return 0;
}

static int32_t readout_of(const struct seq *s, int32_t at0, int32_t node)
{
    return at0 + node * (s->req->p.n_logprobs > 0 ? 2 : 1);
}

/* The token that was decided at a node, with the target's own log-probability there: it was listed or drawn. */
static struct sampled decided(const struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t at0,
                              int32_t node, int32_t tok, struct top_logprob *top)
{
    int32_t at = readout_of(s, at0, node), n = p->readout[at].n, k = 0;
    const int32_t *drawn = r->i + p->readout[at].i0, *list = p->list + p->readout[at].list0;
    struct sampled t = {.tok = tok, .top = top};
    if (s->req->p.n_logprobs < 0)
        return t;
    while (k < n && list[k] != tok)
        k++;
    if (k == n && drawn[0] != tok)
        k++;
    t.logprob = r->f[p->readout[at].f0 + n + 1 + k];
    t.rank = drawn[2 + k];
    if (s->req->p.n_logprobs > 0)
        read_top(p, r, at + 1, top, &t.n_top);
    return t;
}

static int32_t edge_of(const struct drawn_node *d, int32_t tok)
{
    int32_t i = 0;
    while (d->tok[i] != tok)
        i++;
    return i;
}

static void fill_node(const struct seq *s, const struct step_plan *p, const struct step_result *r, int32_t at0,
                      int32_t i, struct verify_node *n)
{
    const struct drawn_node *d = drawn_at(s, i);
    const struct readout *o = &p->readout[readout_of(s, at0, i)];
    *n = (struct verify_node){.parent = i == 0 ? -1 : s->rows.parent[i - 1] + 1,
                              .n_list = d->n,
                              .list = d->tok,
                              .p = r->f + o->f0,
                              .p_off = r->f[o->f0 + d->n],
                              .draw = r->i[o->i0],
                              .draw_off = r->i[o->i0 + 1],
                              .q = d->q,
                              .n_drawn = d->n_drawn,
                              .drawn = d->drawn};
    if (i > 0)
        n->edge = edge_of(drawn_at(s, n->parent), s->rows.tok[i - 1]);
}

/* How often the first drafted token is kept, beside how often the best verifier would keep it (section 5). */
static void sample_optimum(struct engine_metrics *m, const struct verify_tree *t, bool accepted)
{
    if (m->n_verified++ % OPTIMUM_EVERY)
        return;
    m->n_optimum++;
    m->optimum += verify_optimum(&t->node[0], t->law);
    m->optimum_accepted += accepted;
}

void verified_settle(struct engine *eng, struct seq *s, const struct step_plan *p, const struct step_result *r,
                     int32_t at0)
{
    struct verify_node node[VERIFY_MAX_NODE];
    struct verify_result out;
    struct chance_philox chance;
    struct verify_tree tree = {.node = node, .n_node = s->rows.n + 1, .law = s->verified->law};
    for (int32_t i = 0; i < tree.n_node; i++)
        fill_node(s, p, r, at0, i, &node[i]);
    verify_tree(s->verified->kind, &tree, chance_philox(&chance, s->noise_key, seq_n_tok(s), NOISE_ACCEPT), &out);

    sample_optimum(&eng->metrics.now, &tree, out.n_path > 0);
    int32_t slot0 = s->kv.n_computed, at = 0;
    struct top_logprob top[PLAN_MAX_TOPK];
    struct sampled t;
    drafting_count_step(eng, s);
    for (int32_t i = 0; i < out.n_path; i++) {
        int32_t row = out.path[i] - 1;
        t = decided(s, p, r, at0, at, s->rows.tok[row], top);
        drafting_count_true(eng, s, i); /* first: a sequence that ends is gone */
        eng->metrics.now.n_moved += row != i;
        if (!seq_accept(eng, s, &t))
            return;
        at = out.path[i];
        BUG_ON(!seq_commit_row(&eng->target, s, &s->kv, slot0 + row));
    }
    t = decided(s, p, r, at0, at, out.token, top);
    seq_accept(eng, s, &t);
}
