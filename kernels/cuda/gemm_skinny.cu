/* Few rows: decoding and verification. What takes time is the weights' way from memory, so each warp streams two panels
 * through a ring of its own, without barriers: a slice of the columns is a warp's, and the block adds the slices. Of a
 * group, a block has as many rows of one weight; the grid is for the most tiles, and blocks beyond them leave. */
#include "gemm_product.cuh"

/* Sums of a warp: [panel][output][row], in its own ring, which it has emptied. */
template <int N> DEV void leave_sums(float *sums, const float acc[2][N][4], int lane)
{
    UNROLL
    for (int p = 0; p < 2; p++) {
        UNROLL
        for (int n = 0; n < N; n++) {
            UNROLL
            for (int r = 0; r < 4; r++) {
                int o = lane / 4 + 8 * (r >> 1), row = n * 8 + 2 * (lane % 4) + (r & 1);
                sums[(p * GEMM_PANEL + o) * N * 8 + row] = acc[p][n][r];
            }
        }
    }
}

template <int N>
DEV void add_slices(const struct gemm_args *a, const unsigned char *rings, int ring_bytes, int panel0, int row0)
{
    for (int i = threadIdx.x; i < GEMM_PANEL * N * 8; i += GEMM_WARPS * DEV_WARP) {
        int o = i % GEMM_PANEL, row = i / GEMM_PANEL;
        float y[2] = {};
        for (int slice = 0; slice < GEMM_SLICES; slice++) {
            const float *sums = (const float *)(rings + slice * ring_bytes);
            y[0] += sums[o * N * 8 + row];
            y[1] += sums[(GEMM_PANEL + o) * N * 8 + row];
        }
        gemm_finish(a, panel0, o, row0 + row, y[0], y[1]);
    }
}

template <int F, int N, int GROUPED>
KERNEL __launch_bounds__(GEMM_WARPS *DEV_WARP) k_gemm_skinny(struct gemm_args a, struct gemm_group group)
{
    constexpr int STAGES = gemm_skinny_stages(F, N * 8), STAGE = gemm_stage_bytes(F, 2, N * 8);
    constexpr int X = 2 * gemm_stage_panel_bytes(F);
    static_assert((int)GEMM_WARPS == (int)GEMM_SLICES, "a slice is a warp's");
    static_assert(STAGES * STAGE >= 2 * GEMM_PANEL * N * 8 * 4, "a ring holds a warp's sums");
    SMEM_DYN(unsigned char, rings);
    int warp = threadIdx.x / DEV_WARP, lane = threadIdx.x % DEV_WARP, panel0 = blockIdx.x * 2, row0 = 0;
    if constexpr (GROUPED) {
        if (!gemm_take_tile(&a, &group, N * 8, blockIdx.y, &row0))
            return;
    }
    unsigned char *ring = rings + warp * STAGES * STAGE;
    struct slab_range range = gemm_slice(&a.weight, warp);
    float acc[2][N][4] = {};

    auto fill = [&](int slab) {
        unsigned char *stage = ring + (slab - range.begin) % STAGES * STAGE;
        if (slab < range.end) {
            stage_panels<F, 2, DEV_WARP>(stage, &a.weight, panel0, slab, lane);
            stage_x<N * 8, DEV_WARP>(stage + X, &a, GROUPED ? group.row : nullptr, row0, slab, lane);
        }
        dev_copy_commit(); /* an empty group keeps the count */
    };
    for (int i = 0; i < STAGES - 1; i++)
        fill(range.begin + i);
    for (int slab = range.begin; slab < range.end; slab++) {
        dev_copy_wait<STAGES - 2>();
        dev_warp_sync(); /* the other lanes' copies are there, and all have done with the stage to fill */
        fill(slab + STAGES - 1);
        const unsigned char *stage = ring + (slab - range.begin) % STAGES * STAGE;
        slab_product<F, N>(acc, stage, stage + X, lane);
    }
    dev_copy_wait<0>();
    dev_warp_sync();
    leave_sums<N>((float *)ring, acc, lane);
    dev_block_sync();
    add_slices<N>(&a, rings, STAGES * STAGE, panel0, row0);
}

template <int F, int N> static void launch(const struct gemm_args *a, struct CUstream_st *stream)
{
    int32_t n_block = gemm_skinny_blocks(&a->weight), smem_bytes = gemm_skinny_smem_bytes(F, N * 8);
    if (a->group)
        LAUNCH((k_gemm_skinny<F, N, 1>), dim3(n_block, gemm_group_tiles(a, N * 8)), GEMM_WARPS * DEV_WARP, smem_bytes,
               stream, *a, *a->group);
    else
        LAUNCH((k_gemm_skinny<F, N, 0>), n_block, GEMM_WARPS * DEV_WARP, smem_bytes, stream, *a, gemm_group());
}

void gemm_skinny(const struct gemm_args *a, struct CUstream_st *stream)
{
    int32_t most = a->group ? a->group->most : a->n_row;
#define SKINNY(F)                                                                                                      \
    case F:                                                                                                            \
        most <= 8 ? launch<F, 1>(a, stream) : launch<F, 2>(a, stream);                                                 \
        break
    GEMM_BY_FORMAT(a->weight.format, SKINNY)
#undef SKINNY
}
