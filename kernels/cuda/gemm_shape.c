#include "gemm.h"

enum { N_NARROW = 64, N_WIDE = 128, GROUP_WIDE = 2 * N_WIDE };

static int32_t div_up(int32_t a, int32_t b)
{
    return (a + b - 1) / b;
}

/* Of a group by what a weight has on average: one that has more is read again, from a cache. */
int gemm_is_skinny(const struct gemm_args *a)
{
    return (a->group ? a->group->mean : a->n_row) <= GEMM_SKINNY_ROWS && a->weight.format != GEMM_F32;
}

int32_t gemm_skinny_blocks(const struct gemm_weight *w)
{
    return div_up(w->n_panel, 2);
}

int32_t gemm_group_tiles(const struct gemm_args *a, int32_t rows)
{
    const struct gemm_group *g = a->group;
    int64_t all = (int64_t)g->n_weight * g->most; /* fewer than n_row where a group has some of the weights */
    int32_t n_place = a->n_row < all ? a->n_row : (int32_t)all, n_used = g->n_weight < n_place ? g->n_weight : n_place;
    return g->most <= rows ? n_used : n_used + (n_place - n_used) / rows; /* each ends in one that is not full */
}

/* Slices side by side cost a pass over their sums, which pays where it at least doubles the blocks at work. */
static int is_split(int32_t n_tile, int32_t n_block)
{
    return 2 * n_tile <= n_block;
}

/* The last tile of a weight is not full, half of it on average: a group's are narrow until that is little. */
static int is_narrow(const struct gemm_args *a)
{
    return a->weight.format == GEMM_F32 || (a->group ? a->group->mean < GROUP_WIDE : a->n_row <= N_NARROW);
}

void gemm_tiles(const struct gemm_args *a, struct gemm_tiles *t)
{
    int is_group = a->group != NULL;
    t->rows = is_narrow(a) ? N_NARROW : N_WIDE;
    t->n_row_tile = is_group ? gemm_group_tiles(a, t->rows) : div_up(a->n_row, t->rows);
    t->n_out_tile = div_up(a->weight.n_panel, GEMM_WIDE_PANELS);
    t->n_slice = a->scratch && !is_group && is_split(t->n_row_tile * t->n_out_tile, a->n_block) ? GEMM_SLICES : 1;
}

size_t gemm_scratch_bytes(const struct gemm_weight *w, int32_t n_row, int32_t n_block)
{
    int32_t n_out_tile = div_up(w->n_panel, GEMM_WIDE_PANELS), split_tiles = n_block / 2 / n_out_tile;
    if (split_tiles == 0 || (w->format != GEMM_F32 && n_row <= GEMM_SKINNY_ROWS))
        return 0;
    int32_t most = split_tiles * (w->format == GEMM_F32 ? N_NARROW : N_WIDE);
    size_t rows = (size_t)(n_row < most ? n_row : most);
    return GEMM_SLICES * rows * (size_t)w->n_panel * GEMM_PANEL * sizeof(float);
}

/* In bf16 the others would lose bits that the file has, where rounding what is quantised loses none
 * that it was sure of. */
int gemm_can_unpack(enum gemm_format format)
{
    return format != GEMM_F32 && format != GEMM_F16;
}
