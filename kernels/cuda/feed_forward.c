/* The second half of a layer: a gated linear unit, or several of which each row goes through a few.
 *
 * Which rows go through an expert is known to the device alone: launches are sized for all rows and all experts, so
 * that a graph serves any routes. Several ranks choose alike, as what they choose by is the same on all of them; each
 * has some columns of every expert, and one sum over the ranks follows the sum over a row's experts. */
#include "forward.h"

/* A product of all rows, or of those of each expert: `group` of no weights says the former. */
static struct gemm_args product_of(const struct pass *s, const struct gemm_weight *w, const struct gemm_group *group,
                                   const struct bf16 *x, int32_t n_row)
{
    struct gemm_args a = {.weight = *w,
                          .group = *group,
                          .x = x,
                          .n_row = n_row,
                          .x_stride = w->n_in,
                          .n_block = s->m->b->n_block,
                          .scratch = s->pool->gemm};
    a.group.weight_bytes = gemm_weight_bytes(w);
    return a;
}

/* act(x gate^T) * x up^T to the pool's ff; n_row of them, where a group has a place for each. */
static void gated(const struct pass *s, const struct cuda_layer *w, const struct gemm_group *group,
                  const struct bf16 *x, int32_t n_row)
{
    int32_t gelu = !!(s->m->d.flags & MODEL_GELU);
    struct bf16 *ff = s->pool->ff;
    if (w->gate_up.data) {
        struct gemm_args a = product_of(s, &w->gate_up, group, x, n_row);
        a.epilogue = GEMM_GLU;
        a.gelu = gelu;
        a.out_bf16 = ff;
        a.out_stride = w->gate_up.n_out;
        gemm_launch(&a, s->stream);
        return;
    }
    int32_t n = w->gate.n_out;
    struct gemm_args gate = product_of(s, &w->gate, group, x, n_row), up = product_of(s, &w->up, group, x, n_row);
    gate.out = s->pool->gate_up;
    up.out = gate.out + n;
    gate.out_stride = up.out_stride = 2 * n;
    gemm_launch(&gate, s->stream);
    gemm_launch(&up, s->stream);
    struct glu_args a = {
        .gate = gate.out, .up = up.out, .out = ff, .n_row = n_row, .n = n, .stride = 2 * n, .gelu = gelu};
    rows_glu(&a, s->stream);
}

/* To pass_brought: the sum over each row's experts. */
static void experts(const struct pass *s, struct rows r, const struct cuda_layer *w, const struct bf16 *h)
{
    const struct model_desc *d = &s->m->d;
    struct expert_routes routes = s->pool->routes;
    int32_t n_place = r.n * routes.n_used;
    routes.n_row = r.n;
    pass_product(s, &w->router, h, r.n, routes.logit, routes.n_expert, GEMM_STORE);
    experts_route(&routes, ON_DEVICE(s, s->m->lists.slot) + r.row0, !!(d->flags & MODEL_EXPERT_SUM_1), s->stream);

    struct gemm_group group = {
        .n_weight = routes.n_expert, .most = r.n, .first = routes.first, .row = routes.row}; /* x by row */
    gated(s, w, &group, h, n_place);
    group.row = NULL; /* x by place */
    struct gemm_args down = product_of(s, &w->down, &group, s->pool->ff, n_place);
    down.out = s->pool->expert_y;
    down.out_stride = d->n_embd;
    gemm_launch(&down, s->stream);

    bool add;
    struct combine_args a = {.routes = routes, .y = down.out, .n = d->n_embd};
    a.out = pass_brought(s, r, &add);
    a.add = add;
    experts_combine(&a, s->stream);
}

void pass_feed_forward(const struct pass *s, struct rows r, const struct cuda_layer *w)
{
    const struct gemm_group none = {0};
    const struct bf16 *h = s->pool->h + (int64_t)r.row0 * s->m->d.n_embd;
    pass_norm(s, r, w->ffn_norm);
    if (w->router.data) {
        experts(s, r, w, h);
        pass_to_stream(s, r, w->post_ffn_norm);
        return;
    }
    gated(s, w, &none, h, r.n);
    pass_product_to_stream(s, r, &w->down, s->pool->ff, w->post_ffn_norm);
}
