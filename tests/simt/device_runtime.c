/* For tests on a real device: what fake_runtime.h declares, over NVIDIA's runtime. Device memory is managed, so that a
 * test looks into it as it does on the fake; nothing is made to fail. Kernels queued by a test itself have been run
 * when their launch returns if CUDA_LAUNCH_BLOCKING is 1 (tests/gpu.sh). */
#define backend_cuda device_backend_cuda /* the product's own stands in its library */
#include "../../kernels/cuda/runtime_cudart.c"

#include <stdatomic.h>

#include "fake_runtime.h"
#include "simt.h"

struct fake_faults fake_faults;
static atomic_long n_live, n_alloc;

static int managed_alloc(void **out, size_t bytes)
{
    *out = NULL;
    int code = result(cudaMallocManaged(out, bytes ? bytes : 1, cudaMemAttachGlobal));
    n_live += !code;
    n_alloc++;
    return code;
}

static void managed_free(void *p)
{
    n_live -= p != NULL;
    device_free(p);
}

const struct cuda_api fake_runtime = {
    .versions = versions,
    .device_count = device_count,
    .device_info = device_info,
    .use_device = use_device,
    .free_bytes = free_bytes,
    .alloc = managed_alloc,
    .free = managed_free,
    .host_alloc = host_alloc,
    .host_free = host_free,
    .stream_create = stream_create,
    .stream_destroy = stream_destroy,
    .stream_wait = stream_wait,
    .copy = copy,
    .copy_rows = copy_rows,
    .zero = zero,
    .graph_begin = graph_begin,
    .graph_end = graph_end,
    .graph_launch = graph_launch,
    .graph_destroy = graph_destroy,
    .last_error = last_error,
    .error_text = error_text,
};

void fake_runtime_reset(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0);
}

long fake_runtime_live(void)
{
    return n_live;
}

long fake_runtime_allocs(void)
{
    return n_alloc;
}

/* The device has a schedule of its own. */
void simt_seed(uint64_t seed)
{
    (void)seed;
}

void simt_set_threads(int n)
{
    (void)n;
}
