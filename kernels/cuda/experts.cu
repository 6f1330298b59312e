#include "experts.h"

#include "quad.cuh"
#include "rows.h"
#include "select.cuh"

/* ---- The experts of a row ---- */

enum { ROUTE_WARPS = 4 };

/* What decides between experts: no two of a row have the same, nor 0. Zeros of either sign are equal, and NaN stands
 * somewhere, so that a row always goes through as many experts as it should. */
DEV uint64_t expert_key(float logit, int expert)
{
    return select_key(logit + 0.0f, expert);
}

/* The largest key of up to `bound`, of a row whose logits a warp goes through. */
DEV uint64_t largest_key(const float *logit, int n, uint64_t bound)
{
    uint64_t most = 0;
    for (int i = threadIdx.x % DEV_WARP; i < n; i += DEV_WARP) {
        uint64_t key = expert_key(logit[i], i);
        most = key <= bound && key > most ? key : most;
    }
    return dev_warp_greatest(most);
}

/* The sum of e^(logit - top) over all experts. */
DEV float whole_sum(const float *logit, int n, float top)
{
    float sum = 0;
    for (int i = threadIdx.x % DEV_WARP; i < n; i += DEV_WARP)
        sum += dev_exp(logit[i] - top);
    return dev_warp_sum(sum);
}

/* A warp has a row. */
KERNEL __launch_bounds__(ROUTE_WARPS *DEV_WARP) k_route(struct expert_routes r, const int32_t *slot, int32_t sum_1)
{
    int row = blockIdx.x * ROUTE_WARPS + threadIdx.x / DEV_WARP, lane = threadIdx.x % DEV_WARP;
    if (row >= r.n_row)
        return;
    const float *logit = r.logit + (int64_t)row * r.n_expert;
    int32_t *expert = r.expert + (int64_t)row * r.n_used;
    float *share = r.share + (int64_t)row * r.n_used, top = 0, sum = 0;
    bool is_padding = slot[row] < 0;
    uint64_t bound = UINT64_MAX;
    for (int j = 0; j < r.n_used; j++) {
        uint64_t key = largest_key(logit, r.n_expert, bound);
        bound = key - 1;
        float own = select_value((uint32_t)(key >> 32));
        top = j ? top : own;
        own = dev_exp(own - top);
        sum += own;
        if (lane == j % DEV_WARP) {
            expert[j] = is_padding ? -1 : select_id(key);
            share[j] = own;
        }
    }
    if (!sum_1)
        sum = whole_sum(logit, r.n_expert, top);
    for (int j = lane; j < r.n_used; j += DEV_WARP) /* what this lane has written */
        share[j] /= sum;
}

/* ---- The places of an expert ---- */

enum { PLACE_THREADS = 512 };

struct place_smem {
    uint64_t scratch[DEV_WARP];
    int32_t own[PLACE_THREADS / DEV_WARP]; /* choices of the block's expert in each warp's part */
};

/* A block has an expert. It goes through all choices twice, each warp through a part of them: to count those of earlier
 * experts, which have the places before, and its own; then to deal out its places, in order of rows. */
KERNEL __launch_bounds__(PLACE_THREADS) k_place(struct expert_routes r)
{
    SMEM_DYN(place_smem, s);
    int x = blockIdx.x, warp = threadIdx.x / DEV_WARP, lane = threadIdx.x % DEV_WARP, n = r.n_row * r.n_used;
    int part = (n + PLACE_THREADS - 1) / PLACE_THREADS * DEV_WARP;
    int begin = warp * part, end = begin + part < n ? begin + part : n, own = 0;
    uint64_t earlier = 0;
    for (int i0 = begin; i0 < end; i0 += DEV_WARP) {
        int expert = i0 + lane < end ? r.expert[i0 + lane] : -1;
        earlier += expert >= 0 && expert < x;
        own += dev_popc(dev_ballot(expert == x));
    }
    if (lane == 0)
        s->own[warp] = own;
    int at = (int)dev_block_add(earlier, s->scratch); /* its barriers are those of `own` */
    if (threadIdx.x == 0)
        r.first[x] = at;
    for (int w = 0; w < warp; w++)
        at += s->own[w];
    if (x == r.n_expert - 1 && threadIdx.x == PLACE_THREADS - 1)
        r.first[r.n_expert] = at + own;
    for (int i0 = begin; i0 < end; i0 += DEV_WARP) {
        int i = i0 + lane;
        bool is_own = i < end && r.expert[i] == x;
        uint32_t all = dev_ballot(is_own);
        if (is_own) {
            int place = at + dev_popc(all & ((1u << lane) - 1));
            r.place[i] = place;
            r.row[place] = i / r.n_used;
        }
        at += dev_popc(all);
    }
}

/* ---- What comes of them ---- */

KERNEL __launch_bounds__(512) k_combine(struct combine_args a)
{
    int64_t row = blockIdx.x, first = row * a.routes.n_used;
    const int32_t *place = a.routes.place + first;
    const float *share = a.routes.share + first;
    int n_used = a.routes.expert[first] < 0 ? 0 : a.routes.n_used;
    float *out = a.out + row * a.n;
    for (int i = (blockIdx.y * blockDim.x + threadIdx.x) * 4; i < a.n; i += gridDim.y * blockDim.x * 4) {
        struct quad sum = {};
        for (int j = 0; j < n_used; j++) {
            struct quad y = quad_load(a.y + (int64_t)place[j] * a.n + i);
            UNROLL
            for (int k = 0; k < 4; k++)
                sum.v[k] += share[j] * y.v[k];
        }
        if (a.add) {
            struct quad x = quad_load(out + i);
            UNROLL
            for (int k = 0; k < 4; k++)
                sum.v[k] = x.v[k] + sum.v[k];
        }
        *(struct quad *)(out + i) = sum;
    }
}

/* ---- Launches ---- */

void experts_route(const struct expert_routes *r, const int32_t *slot, int32_t sum_1, struct CUstream_st *stream)
{
    LAUNCH(k_route, (r->n_row + ROUTE_WARPS - 1) / ROUTE_WARPS, ROUTE_WARPS * DEV_WARP, 0, stream, *r, slot, sum_1);
    LAUNCH(k_place, r->n_expert, PLACE_THREADS, sizeof(struct place_smem), stream, *r);
}

void experts_combine(const struct combine_args *a, struct CUstream_st *stream)
{
    int32_t threads = rows_block_threads(a->n), per_block = threads * 4;
    LAUNCH(k_combine, dim3(a->routes.n_row, (a->n + per_block - 1) / per_block), threads, 0, stream, *a);
}
