/* For tests on real devices: what fake_comm.h declares, over NCCL. */
#define comm_nccl device_comm_nccl /* the product's own stands in its library */
#include "../../kernels/cuda/comm_nccl.c"

#include "fake_comm.h"

struct fake_comm_faults fake_comm_faults;
static atomic_long n_live;

static int counted_join(struct comm **out, const struct comm_id *id, int32_t n_rank, int32_t rank)
{
    int code = join(out, id, n_rank, rank);
    n_live += !code;
    return code;
}

static void counted_leave(struct comm *c)
{
    n_live -= c != NULL;
    leave(c);
}

const struct comm_api fake_comm = {
    .timeout_ms = TIMEOUT_MS,
    .find = find,
    .make_id = make_id,
    .join = counted_join,
    .leave = counted_leave,
    .abort = abort_rank,
    .state = state,
    .sum = sum,
    .exchange = exchange,
    .error_text = error_text,
};

void fake_comm_reset(void)
{
}

long fake_comm_live(void)
{
    return n_live;
}
