/* Many rows: a block multiplies 128 outputs with 64 or 128 rows, through a ring that all its warps fill and read. The
 * order of additions is that of k_gemm_skinny. Of a group, a block's rows are of one weight. */
#include "gemm_product.cuh"

enum { WARPS_OUT = GEMM_WIDE_PANELS / 2, WARPS_ROW = GEMM_WARPS / WARPS_OUT };

template <int N> DEV void close_slice(float total[2][N][4], float acc[2][N][4])
{
    UNROLL
    for (int p = 0; p < 2; p++) {
        UNROLL
        for (int n = 0; n < N; n++) {
            UNROLL
            for (int r = 0; r < 4; r++) {
                total[p][n][r] += acc[p][n][r];
                acc[p][n][r] = 0;
            }
        }
    }
}

/* The sums of a slice, for k_gemm_merge: scratch[slice][row][panel][output]. */
DEV void leave_slice(const struct gemm_args *a, int slice, int panel, int o, int row, float y0, float y1)
{
    if (row >= a->n_row || panel >= a->weight.n_panel)
        return;
    float *to = a->scratch + (((int64_t)slice * a->n_row + row) * a->weight.n_panel + panel) * GEMM_PANEL + o;
    to[0] = y0;
    if (panel + 1 < a->weight.n_panel)
        to[GEMM_PANEL] = y1;
}

template <int F, int N, int GROUPED>
KERNEL __launch_bounds__(GEMM_WARPS *DEV_WARP) k_gemm_wide(struct gemm_args a, struct gemm_group group)
{
    constexpr int ROWS = WARPS_ROW * N * 8, STAGES = gemm_wide_stages(F, ROWS), THREADS = GEMM_WARPS * DEV_WARP;
    constexpr int PANEL = gemm_stage_panel_bytes(F), X = GEMM_WIDE_PANELS * PANEL;
    constexpr int STAGE = gemm_stage_bytes(F, GEMM_WIDE_PANELS, ROWS);
    SMEM_DYN(unsigned char, ring);
    int warp = threadIdx.x / DEV_WARP, lane = threadIdx.x % DEV_WARP;
    int own_panel = warp % WARPS_OUT * 2, own_row = warp / WARPS_OUT * N * 8;
    int panel0 = blockIdx.y * GEMM_WIDE_PANELS, row0 = blockIdx.x * ROWS;
    if constexpr (GROUPED) {
        if (!gemm_take_tile(&a, &group, ROWS, blockIdx.x, &row0))
            return;
    }
    bool is_split = gridDim.z > 1;
    struct slab_range first = gemm_slice(&a.weight, 0), range = gemm_slice(&a.weight, blockIdx.z);
    int slice_len = first.end;
    if (!is_split)
        range.end = a.weight.n_slab;
    float acc[2][N][4] = {}, total[2][N][4] = {};

    auto fill = [&](int slab) {
        unsigned char *stage = ring + (slab - range.begin) % STAGES * STAGE;
        if (slab < range.end) {
            stage_panels<F, GEMM_WIDE_PANELS, THREADS>(stage, &a.weight, panel0, slab, threadIdx.x);
            stage_x<ROWS, THREADS>(stage + X, &a, GROUPED ? group.row : nullptr, row0, slab, threadIdx.x);
        }
        dev_copy_commit(); /* an empty group keeps the count */
    };
    for (int i = 0; i < STAGES - 1; i++)
        fill(range.begin + i);
    for (int slab = range.begin; slab < range.end; slab++) {
        dev_copy_wait<STAGES - 2>();
        dev_block_sync(); /* the others' copies are there, and all have done with the stage to fill */
        fill(slab + STAGES - 1);
        const unsigned char *stage = ring + (slab - range.begin) % STAGES * STAGE;
        slab_product<F, N>(acc, stage + own_panel * PANEL, stage + X + own_row * GEMM_X_BYTES, lane);
        if ((slab + 1) % slice_len == 0 || slab + 1 == range.end)
            close_slice<N>(total, acc);
    }
    dev_copy_wait<0>();
    UNROLL
    for (int n = 0; n < N; n++) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            int o = lane / 4 + 8 * (r >> 1), row = row0 + own_row + n * 8 + 2 * (lane % 4) + (r & 1);
            if (is_split)
                leave_slice(&a, blockIdx.z, panel0 + own_panel, o, row, total[0][n][r], total[1][n][r]);
            else
                gemm_finish(&a, panel0 + own_panel, o, row, total[0][n][r], total[1][n][r]);
        }
    }
}

/* Adds the slices that ran side by side, in ascending order; a thread has an output of two panels. */
KERNEL __launch_bounds__(256) k_gemm_merge(struct gemm_args a)
{
    int i = blockIdx.x * 256 + threadIdx.x, panel = i / GEMM_PANEL * 2, o = i % GEMM_PANEL, row = blockIdx.y;
    int n_panel = a.weight.n_panel;
    if (panel >= n_panel)
        return;
    float y0 = 0, y1 = 0;
    for (int slice = 0; slice < GEMM_SLICES; slice++) {
        const float *sums = a.scratch + (((int64_t)slice * a.n_row + row) * n_panel + panel) * GEMM_PANEL + o;
        y0 += sums[0];
        if (panel + 1 < n_panel)
            y1 += sums[GEMM_PANEL];
    }
    gemm_finish(&a, panel, o, row, y0, y1);
}

template <int F, int N, int GROUPED>
static void launch(const struct gemm_args *a, const struct gemm_tiles *t, struct CUstream_st *stream)
{
    LAUNCH((k_gemm_wide<F, N, GROUPED>), dim3(t->n_row_tile, t->n_out_tile, t->n_slice), GEMM_WARPS * DEV_WARP,
           gemm_wide_smem_bytes(F, t->rows), stream, *a, GROUPED ? *a->group : gemm_group());
}

template <int F, int N>
static void by_group(const struct gemm_args *a, const struct gemm_tiles *t, struct CUstream_st *stream)
{
    a->group ? launch<F, N, 1>(a, t, stream) : launch<F, N, 0>(a, t, stream);
}

void gemm_wide(const struct gemm_args *a, struct CUstream_st *stream)
{
    struct gemm_tiles t;
    gemm_tiles(a, &t);
#define WIDE(F)                                                                                                        \
    case F:                                                                                                            \
        t.rows == 64 ? by_group<F, 4>(a, &t, stream) : by_group<F, 8>(a, &t, stream);                                  \
        break
    if (a->weight.format == GEMM_F32)
        by_group<GEMM_F32, 4>(a, &t, stream);
    else
        GEMM_BY_FORMAT(a->weight.format, WIDE)
#undef WIDE
    int32_t per_row = (a->weight.n_panel + 1) / 2 * GEMM_PANEL;
    if (t.n_slice > 1)
        LAUNCH(k_gemm_merge, dim3((per_row + 255) / 256, a->n_row), 256, 0, stream, *a);
}

void gemm_launch(const struct gemm_args *a, struct CUstream_st *stream)
{
    if (gemm_is_skinny(a))
        gemm_skinny(a, stream);
    else
        gemm_wide(a, stream);
}
