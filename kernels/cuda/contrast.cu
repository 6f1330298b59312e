/* READ_CONTRAST (SimCTG's degeneration penalty, arXiv:2202.06417): the largest cosine between a row's final hidden
 * state and those of the positions that it sees. The plane holds unit vectors, so a cosine is a dot product. */
#include "readouts.h"

#include "dev.cuh"

enum { CONTRAST_WARPS = 8 };

struct contrast_smem {
    float scratch[DEV_WARP];
};

DEV const struct f16 *plane_row(const struct contrast_args *a, const struct contrast_job *job, int32_t slot)
{
    int32_t in_block = slot & ((1 << a->block_shift) - 1);
    return a->plane + (int64_t)((a->bt[job->bt_off + (slot >> a->block_shift)] << a->block_shift) + in_block) * a->n;
}

/* One warp a key, keys dealt out over the warps of a job's blocks. */
KERNEL __launch_bounds__(CONTRAST_WARPS *DEV_WARP) k_contrast(struct contrast_args a)
{
    SMEM_DYN(contrast_smem, s);
    struct contrast_job job = a.job[blockIdx.x];
    struct attn_row row = a.row[job.row];
    int lane = threadIdx.x % DEV_WARP, n_key = row.n_prefix + dev_popc(row.vis);
    const struct f16 *own = plane_row(&a, &job, job.own_slot);
    float best = -1;
    for (int32_t key = blockIdx.y * CONTRAST_WARPS + threadIdx.x / DEV_WARP; key < n_key;
         key += gridDim.y * CONTRAST_WARPS) {
        int32_t slot = key;
        if (key >= row.n_prefix) {
            uint64_t bits = row.vis;
            for (int32_t k = key - row.n_prefix; k > 0; k--)
                bits &= bits - 1;
            slot = row.tree0 + dev_lowest_bit(bits);
        }
        const struct f16 *other = plane_row(&a, &job, slot);
        float dot = 0;
        for (int32_t i = lane * 2; i < a.n; i += DEV_WARP * 2)
            dot += dev_to_f32(own[i]) * dev_to_f32(other[i]) + dev_to_f32(own[i + 1]) * dev_to_f32(other[i + 1]);
        dot = dev_warp_sum(dot);
        if (slot != job.own_slot)
            best = fmaxf(best, dot);
    }
    best = dev_block_max(best, s->scratch);
    if (threadIdx.x == 0)
        a.part[blockIdx.x * CONTRAST_PARTS + blockIdx.y] = best;
}

KERNEL __launch_bounds__(DEV_WARP) k_contrast_best(struct contrast_args a)
{
    float best = dev_warp_max(a.part[blockIdx.x * CONTRAST_PARTS + threadIdx.x]);
    if (threadIdx.x == 0)
        a.f[a.job[blockIdx.x].f0] = best;
}

static_assert((int)CONTRAST_PARTS == (int)DEV_WARP, "a lane for each part");

void readouts_contrast(const struct contrast_args *a, struct CUstream_st *stream)
{
    if (!a->n_job)
        return;
    LAUNCH(k_contrast, dim3(a->n_job, CONTRAST_PARTS), CONTRAST_WARPS * DEV_WARP, sizeof(struct contrast_smem), stream,
           *a);
    LAUNCH(k_contrast_best, a->n_job, DEV_WARP, 0, stream, *a);
}
