/* The second half of a layer: a gated linear unit, or several of which each row goes through a few.
 *
 * Which rows go through an expert is known to the device alone: launches are sized for all rows and all experts, so
 * that a graph serves any routes. Several ranks choose alike, as what they choose by is the same on all of them; each
 * has some columns of every expert, and one sum over the ranks follows the sum over a row's experts. Experts of
 * different formats take a launch a format, each for the places of its own. */
#include "forward.h"

/* With a weight of f: of all rows; or of each expert's, whose weights follow w. The arguments say from where to where.
 */
static void product(const struct pass *s, const struct cuda_ffn *f, const struct gemm_weight *w,
                    const struct gemm_group *group, struct gemm_args a)
{
    struct gemm_group own = group ? *group : (struct gemm_group){0};
    own.n_weight = f->n_expert;
    own.number = f->expert;
    own.weight_bytes = gemm_weight_bytes(w);
    a.weight = *w;
    a.group = group ? &own : NULL;
    a.x_stride = w->n_in;
    a.n_block = s->m->b->n_block;
    a.scratch = s->pool->gemm;
    pass_launch(s, &a);
}

/* act(x gate^T) * x up^T to the pool's ff, by row or by place of a group. */
static void gated(const struct pass *s, const struct cuda_layer *w, const struct gemm_group *group,
                  const struct bf16 *x, int32_t n_row)
{
    int32_t gelu = !!(s->m->d.flags & MODEL_GELU);
    struct bf16 *ff = s->pool->ff;
    const struct cuda_ffn *end = w->ffn + w->n_ffn;
    if (w->ffn->gate_up.data) {
        struct gemm_args both = {.x = x,
                                 .n_row = n_row,
                                 .epilogue = GEMM_GLU,
                                 .gelu = gelu,
                                 .out_bf16 = ff,
                                 .out_stride = w->ffn->gate_up.n_out};
        for (const struct cuda_ffn *f = w->ffn; f < end; f++)
            product(s, f, &f->gate_up, group, both);
        return;
    }
    int32_t n = w->ffn->gate.n_out;
    struct gemm_args gate = {.x = x, .n_row = n_row, .out = s->pool->gate_up, .out_stride = 2 * n}, up = gate;
    up.out += n;
    for (const struct cuda_ffn *f = w->ffn; f < end; f++) {
        product(s, f, &f->gate, group, gate);
        product(s, f, &f->up, group, up);
    }
    struct glu_args a = {.gate = gate.out,
                         .up = up.out,
                         .out = ff,
                         .n_row = n_row,
                         .n = n,
                         .stride = 2 * n,
                         .out_stride = n,
                         .gelu = gelu};
    rows_glu(&a, s->stream);
}

/* To pass_brought: the sum over each row's experts. */
static void experts(const struct pass *s, struct rows r, const struct cuda_layer *w, const struct bf16 *h)
{
    const struct model_desc *d = &s->m->d;
    struct expert_routes routes = s->pool->routes;
    int32_t n_place = r.n * routes.n_used;
    routes.n_row = r.n;
    struct gemm_args router = pass_args(s, &w->router, h, r.n, routes.logit, routes.n_expert);
    gemm_launch(&router, s->stream); /* by no library: ranks choose those by their own clocks */
    experts_route(&routes, ON_DEVICE(s, s->m->lists.slot) + r.row0, !!(d->flags & MODEL_EXPERT_SUM_1), s->stream);

    struct gemm_group group = {.most = r.n,
                               .mean = (n_place + routes.n_expert - 1) / routes.n_expert,
                               .first = routes.first,
                               .row = routes.row}; /* x by row */
    gated(s, w, &group, h, n_place);
    group.row = NULL; /* x by place */
    struct gemm_args down = {.x = s->pool->ff, .n_row = n_place, .out = s->pool->expert_y, .out_stride = d->n_embd};
    for (const struct cuda_ffn *f = w->ffn; f < w->ffn + w->n_ffn; f++)
        product(s, f, &f->down, &group, down);

    bool add;
    struct combine_args a = {.routes = routes, .y = down.out, .n = d->n_embd};
    a.out = pass_brought(s, r, &add);
    a.add = add;
    experts_combine(&a, s->stream);
}

void pass_feed_forward(const struct pass *s, struct rows r, const struct cuda_layer *w)
{
    const struct bf16 *h = s->pool->h + (int64_t)r.row0 * s->m->d.n_embd;
    pass_norm(s, r, w->ffn_norm);
    if (w->router.data) {
        experts(s, r, w, h);
        pass_to_stream(s, r, w->post_ffn_norm);
        return;
    }
    gated(s, w, NULL, h, r.n);
    pass_product_to_stream(s, r, &w->ffn->down, s->pool->ff, w->post_ffn_norm);
}
