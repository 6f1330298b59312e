/* A packed weight back to rows of bf16, for a library that multiplies those. Codes and scales are read as the products
 * read them (gemm_product.cuh), so that the two cannot differ about a format. */
#include "gemm_product.cuh"

enum { UNPACK_WARPS = 8 };

/* Rows of a slab, written by lanes that have eight columns of a row: columns 8 apart lie in banks of their own. */
constexpr int TILE_ROW = GEMM_SLAB + 8;

template <int F> struct unpack_smem { /* of a warp */
    alignas(16) unsigned char stage[gemm_stage_panel_bytes(F)];
    alignas(16) struct bf16 tile[GEMM_PANEL * TILE_ROW];
};

/* Weights e = 0, 1 of register r of a step. */
template <int F> DEV float fragment_value(const struct fragment<F> *f, int step, int r, int e)
{
    float v = 0;
    UNROLL
    for (int i = 0; i < gemm_parts<F>; i++) {
        uint32_t pair = f->a[step][i][r];
        v += dev_bits_f32(e ? pair & 0xffff0000 : pair << 16);
    }
    if constexpr (gemm_is_float<F>)
        return v;
    v *= f->scale[r & 1][F == GEMM_Q6_K ? step : 0];
    if constexpr (gemm_has_min<F>)
        v -= f->min[r & 1];
    return v;
}

template <int F> DEV void fragment_to_tile(struct bf16 *tile, const struct fragment<F> *f, int half, int lane)
{
    UNROLL
    for (int step = 0; step < 2; step++) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            int row = lane / 4 + 8 * (r & 1), column = 32 * half + 16 * step + 8 * (r >> 1) + 2 * (lane % 4);
            *(uint32_t *)(tile + row * TILE_ROW + column) =
                dev_pack_bf16(fragment_value<F>(f, step, r, 0), fragment_value<F>(f, step, r, 1));
        }
    }
}

/* As far as the rows asked for, and the columns there are. */
DEV void tile_to_rows(const struct unpack_args *a, const struct bf16 *tile, int row0, int slab, int lane)
{
    UNROLL
    for (int i = lane; i < GEMM_PANEL * 8; i += DEV_WARP) {
        int row = i / 8, k = slab * GEMM_SLAB + i % 8 * 8;
        if (row0 + row < a->n_out && k < a->weight.n_in)
            *(struct vec16 *)(a->out + (int64_t)(row0 + row) * a->weight.n_in + k) =
                *(const struct vec16 *)(tile + row * TILE_ROW + i % 8 * 8);
    }
}

/* A warp has a panel's slab. */
template <int F> KERNEL __launch_bounds__(UNPACK_WARPS *DEV_WARP) k_gemm_unpack(struct unpack_args a)
{
    SMEM_DYN(struct unpack_smem<F>, all);
    int warp = threadIdx.x / DEV_WARP, lane = threadIdx.x % DEV_WARP, slab = blockIdx.x;
    int panel = blockIdx.y * UNPACK_WARPS + warp, row0 = panel * GEMM_PANEL; /* of those asked for */
    struct unpack_smem<F> *s = all + warp;
    struct fragment<F> f;
    int packed = (a.out0 / GEMM_PANEL + panel) * a.weight.n_matrix + a.matrix;
    stage_panels<F, 1, DEV_WARP>(s->stage, &a.weight, packed, slab, lane);
    dev_copy_commit();
    dev_copy_wait<0>();
    dev_warp_sync();
    UNROLL
    for (int half = 0; half < 2; half++) {
        load_fragment<F>(&f, s->stage, half, lane);
        fragment_to_tile<F>(s->tile, &f, half, lane);
    }
    dev_warp_sync();
    tile_to_rows(&a, s->tile, row0, slab, lane);
}

template <int F> static void launch(const struct unpack_args *a, struct CUstream_st *stream)
{
    int32_t n_panel = (a->n_out + GEMM_PANEL - 1) / GEMM_PANEL, n_block = (n_panel + UNPACK_WARPS - 1) / UNPACK_WARPS;
    LAUNCH((k_gemm_unpack<F>), dim3(a->weight.n_slab, n_block), UNPACK_WARPS * DEV_WARP,
           UNPACK_WARPS * sizeof(struct unpack_smem<F>), stream, *a);
}

void gemm_unpack(const struct unpack_args *a, struct CUstream_st *stream)
{
    switch (a->weight.format) {
#define UNPACK(F)                                                                                                      \
    case F:                                                                                                            \
        launch<F>(a, stream);                                                                                          \
        break
        UNPACK(GEMM_BF16);
        UNPACK(GEMM_Q8_0);
        UNPACK(GEMM_Q4_0);
        UNPACK(GEMM_MXFP4);
        UNPACK(GEMM_Q4_K);
        UNPACK(GEMM_Q5_K);
        UNPACK(GEMM_Q6_K);
        UNPACK(GEMM_FP8);
#undef UNPACK
    default:
        break;
    }
}
