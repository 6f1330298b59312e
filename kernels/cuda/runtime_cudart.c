/* The table of runtime.h over NVIDIA's own runtime, linked statically: it looks the driver up when it is first called,
 * so that a binary with it starts on a machine that has none. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "cuda.h"

/* An error of a call is also kept for last_error, which is to report launches alone. */
static int result(cudaError_t code)
{
    if (code)
        cudaGetLastError();
    return code;
}

static int versions(int32_t *driver, int32_t *runtime)
{
    cudaError_t code = cudaDriverGetVersion(driver);
    return result(code ? code : cudaRuntimeGetVersion(runtime));
}

static int device_count(int32_t *n)
{
    return result(cudaGetDeviceCount(n));
}

static int device_info(int32_t device, struct cuda_device *out)
{
    struct cudaDeviceProp p;
    int mode = cudaComputeModeDefault;
    cudaError_t code = cudaGetDeviceProperties(&p, device);
    if (!code)
        code = cudaDeviceGetAttribute(&mode, cudaDevAttrComputeMode, device);
    if (code)
        return result(code);
    *out = (struct cuda_device){.n_sm = p.multiProcessorCount,
                                .major = p.major,
                                .minor = p.minor,
                                .total_bytes = p.totalGlobalMem,
                                .prohibited = mode == cudaComputeModeProhibited};
    snprintf(out->name, sizeof out->name, "%.63s", p.name);
    return 0;
}

static int use_device(int32_t device)
{
    return result(cudaSetDevice(device));
}

static int free_bytes(size_t *out)
{
    size_t total;
    return result(cudaMemGetInfo(out, &total));
}

static int device_alloc(void **out, size_t bytes)
{
    *out = NULL;
    return result(cudaMalloc(out, bytes ? bytes : 1)); /* none for 0 would read as no memory */
}

static void device_free(void *p)
{
    result(cudaFree(p));
}

static int host_alloc(void **out, size_t bytes)
{
    *out = NULL;
    return result(cudaMallocHost(out, bytes ? bytes : 1));
}

static void host_free(void *p)
{
    if (p)
        result(cudaFreeHost(p));
}

static int stream_create(struct CUstream_st **out)
{
    *out = NULL;
    return result(cudaStreamCreateWithFlags(out, cudaStreamNonBlocking));
}

static void stream_destroy(struct CUstream_st *s)
{
    if (s)
        result(cudaStreamDestroy(s));
}

static int stream_wait(struct CUstream_st *s)
{
    return result(cudaStreamSynchronize(s));
}

static int copy(void *dst, const void *src, size_t bytes, struct CUstream_st *s)
{
    return result(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, s));
}

static int copy_rows(void *dst, size_t dst_stride, const void *src, size_t src_stride, size_t width, size_t n,
                     struct CUstream_st *s)
{
    return result(cudaMemcpy2DAsync(dst, dst_stride, src, src_stride, width, n, cudaMemcpyDeviceToDevice, s));
}

static int zero(void *dst, size_t bytes, struct CUstream_st *s)
{
    return result(cudaMemsetAsync(dst, 0, bytes, s));
}

static int graph_begin(struct CUstream_st *s)
{
    return result(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
}

/* Uploaded at once, so that the first step pays nothing. */
static int graph_end(struct CUstream_st *s, struct CUgraphExec_st **out)
{
    cudaGraph_t graph = NULL;
    *out = NULL;
    cudaError_t code = cudaStreamEndCapture(s, &graph);
    if (!code)
        code = cudaGraphInstantiate(out, graph, 0);
    if (graph)
        cudaGraphDestroy(graph);
    if (!code)
        code = cudaGraphUpload(*out, s);
    if (code && *out) {
        cudaGraphExecDestroy(*out);
        *out = NULL;
    }
    return result(code);
}

static int graph_launch(struct CUgraphExec_st *g, struct CUstream_st *s)
{
    return result(cudaGraphLaunch(g, s));
}

static void graph_destroy(struct CUgraphExec_st *g)
{
    if (g)
        result(cudaGraphExecDestroy(g));
}

static int last_error(void)
{
    return cudaGetLastError();
}

static const char *error_text(int code)
{
    return cudaGetErrorString((cudaError_t)code);
}

static const struct cuda_api cudart = {
    .versions = versions,
    .device_count = device_count,
    .device_info = device_info,
    .use_device = use_device,
    .free_bytes = free_bytes,
    .alloc = device_alloc,
    .free = device_free,
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

const struct backend_ops *backend_cuda(void)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 0); /* a kernel's first use may be in a recording, which cannot load it */
    return cuda_backend(&cudart, comm_nccl(), blas_cublaslt());
}
