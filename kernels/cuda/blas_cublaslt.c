/* The table of blas.h over cuBLASLt. Its few functions are declared here, as its ABI has had them since release 12; a
 * matrix is column-major to it, so that out^T[n_out][n_row] = (w^T)^T x^T is what it is asked for. */
#include <dlfcn.h>

#include "blas.h"
#include "mem.h"

static const char *const libraries[] = {"libcublasLt.so.13", "libcublasLt.so.12"};

#define PIECE_BYTES ((size_t)64 << 20)
#define WORKSPACE_BYTES ((size_t)32 << 20) /* what NVIDIA advises for Hopper */

enum {
    LT_NO_MEMORY = 3,     /* CUBLAS_STATUS_ALLOC_FAILED */
    LT_UNSUPPORTED = 15,  /* CUBLAS_STATUS_NOT_SUPPORTED */
    LT_F32 = 0,           /* CUDA_R_32F */
    LT_BF16 = 14,         /* CUDA_R_16BF */
    LT_COMPUTE_F32 = 68,  /* CUBLAS_COMPUTE_32F */
    LT_TRANSPOSED = 1,    /* CUBLAS_OP_T */
    LT_DESC_TRANS_A = 3,  /* CUBLASLT_MATMUL_DESC_TRANSA */
    LT_LAYOUT_ROWS = 2,   /* CUBLASLT_MATRIX_LAYOUT_ROWS, and .. */
    LT_LAYOUT_COLS = 3,   /* .. _COLS */
    LT_PREF_WORKSPACE = 1 /* CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES */
};
/* CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, .. _C_BYTES, .. _D_BYTES */
static const int alignments[] = {6, 7, 8};

struct lt_algo {
    uint64_t opaque[8];
};

struct lt_choice { /* cublasLtMatmulHeuristicResult_t */
    struct lt_algo algo;
    size_t workspace_bytes;
    int state;
    float n_wave;
    int reserved[4];
};

struct lt_desc; /* cublasLtMatmulDescOpaque_t, and likewise */
struct lt_layout;
struct lt_preference;

static struct cublaslt { /* owner: find(), which fills it before any other call */
    size_t (*version)(void);
    int (*create)(struct blas **out);
    int (*destroy)(struct blas *b);
    int (*desc_create)(struct lt_desc **out, int compute, int scale);
    int (*desc_destroy)(struct lt_desc *d);
    int (*desc_set)(struct lt_desc *d, int what, const void *value, size_t bytes);
    int (*layout_create)(struct lt_layout **out, int type, uint64_t n_row, uint64_t n_col, int64_t stride);
    int (*layout_destroy)(struct lt_layout *l);
    int (*layout_set)(struct lt_layout *l, int what, const void *value, size_t bytes);
    int (*preference_create)(struct lt_preference **out);
    int (*preference_destroy)(struct lt_preference *p);
    int (*preference_set)(struct lt_preference *p, int what, const void *value, size_t bytes);
    int (*choose)(struct blas *b, struct lt_desc *d, struct lt_layout *a, struct lt_layout *x, struct lt_layout *c,
                  struct lt_layout *out, struct lt_preference *p, int n, struct lt_choice *choice, int *n_found);
    int (*multiply)(struct blas *b, struct lt_desc *d, const void *alpha, const void *a, struct lt_layout *la,
                    const void *x, struct lt_layout *lx, const void *beta, const void *c, struct lt_layout *lc,
                    void *out, struct lt_layout *lout, const struct lt_algo *algo, void *workspace,
                    size_t workspace_bytes, struct CUstream_st *s);
    const char *(*status_string)(int code);
} lt;

struct blas_plan { /* owner: the caller of plan() */
    struct lt_desc *desc;
    struct lt_layout *w, *x, *out;
    struct lt_algo algo;
    bool add;
};

static int look_up(void *lib, struct cublaslt *found, const char *library, struct err *e)
{
    const struct {
        const char *name;
        void *to;
    } symbol[] = {
        {"cublasLtGetVersion", &found->version},
        {"cublasLtCreate", &found->create},
        {"cublasLtDestroy", &found->destroy},
        {"cublasLtMatmulDescCreate", &found->desc_create},
        {"cublasLtMatmulDescDestroy", &found->desc_destroy},
        {"cublasLtMatmulDescSetAttribute", &found->desc_set},
        {"cublasLtMatrixLayoutCreate", &found->layout_create},
        {"cublasLtMatrixLayoutDestroy", &found->layout_destroy},
        {"cublasLtMatrixLayoutSetAttribute", &found->layout_set},
        {"cublasLtMatmulPreferenceCreate", &found->preference_create},
        {"cublasLtMatmulPreferenceDestroy", &found->preference_destroy},
        {"cublasLtMatmulPreferenceSetAttribute", &found->preference_set},
        {"cublasLtMatmulAlgoGetHeuristic", &found->choose},
        {"cublasLtMatmul", &found->multiply},
        {"cublasLtGetStatusString", &found->status_string},
    };
    for (size_t i = 0; i < sizeof symbol / sizeof *symbol; i++) {
        void **to = symbol[i].to;
        *to = dlsym(lib, symbol[i].name);
        if (!*to)
            return err_set(e, ERR_NOTFOUND, "%s has no %s", library, symbol[i].name);
    }
    return 0;
}

static int find(struct err *e)
{
    void *lib = NULL;
    size_t i = 0;
    if (lt.version)
        return 0;
    for (; !lib && i < sizeof libraries / sizeof *libraries; i++)
        lib = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return err_set(e, ERR_NOTFOUND, "%.300s", dlerror());
    struct cublaslt found;
    int rc = look_up(lib, &found, libraries[i - 1], e);
    if (rc)
        dlclose(lib);
    else
        lt = found;
    return rc;
}

static int open_library(struct blas **out)
{
    *out = NULL;
    return lt.create(out);
}

static void close_library(struct blas *b)
{
    if (b)
        lt.destroy(b);
}

static void forget(struct blas_plan *p)
{
    if (!p)
        return;
    if (p->desc)
        lt.desc_destroy(p->desc);
    struct lt_layout *layout[] = {p->w, p->x, p->out};
    for (int i = 0; i < 3; i++)
        if (layout[i])
            lt.layout_destroy(layout[i]);
    mem_free(p);
}

static int describe(struct blas_plan *p, const struct blas_shape *s)
{
    const int32_t transposed = LT_TRANSPOSED;
    uint64_t n_out = (uint64_t)s->n_out, n_in = (uint64_t)s->n_in, n_row = (uint64_t)s->n_row;
    int code = lt.desc_create(&p->desc, LT_COMPUTE_F32, LT_F32);
    if (!code)
        code = lt.desc_set(p->desc, LT_DESC_TRANS_A, &transposed, sizeof transposed);
    if (!code)
        code = lt.layout_create(&p->w, LT_BF16, n_in, n_out, s->n_in);
    if (!code)
        code = lt.layout_create(&p->x, LT_BF16, n_in, n_row, s->n_in);
    if (!code)
        code = lt.layout_create(&p->out, LT_F32, n_out, n_row, s->out_stride);
    return code;
}

/* The algorithm that the library thinks best. It serves other numbers of rows too: tiles are cut off at their end. */
static int choose(struct blas *b, struct blas_plan *p)
{
    struct lt_preference *preference = NULL;
    struct lt_choice best = {0};
    const size_t workspace_bytes = WORKSPACE_BYTES;
    const uint32_t align = BLAS_ALIGN;
    int n_found = 0, code = lt.preference_create(&preference);
    if (!code)
        code = lt.preference_set(preference, LT_PREF_WORKSPACE, &workspace_bytes, sizeof workspace_bytes);
    for (size_t i = 0; !code && i < sizeof alignments / sizeof *alignments; i++)
        code = lt.preference_set(preference, alignments[i], &align, sizeof align);
    if (!code)
        code = lt.choose(b, p->desc, p->w, p->x, p->out, p->out, preference, 1, &best, &n_found);
    if (preference)
        lt.preference_destroy(preference);
    p->algo = best.algo;
    return code ? code : n_found < 1 ? LT_UNSUPPORTED : best.state;
}

static int plan(struct blas *b, const struct blas_shape *s, struct blas_plan **out)
{
    *out = NULL;
    struct blas_plan *p = mem_calloc(1, sizeof *p);
    if (!p)
        return LT_NO_MEMORY;
    p->add = s->add;
    int code = describe(p, s);
    if (!code)
        code = choose(b, p);
    if (code)
        forget(p);
    else
        *out = p;
    return code;
}

static int run(struct blas *b, struct blas_plan *p, const struct blas_operands *o, struct CUstream_st *s)
{
    const float one = 1, beta = p->add ? 1 : 0;
    const uint64_t n_out = (uint64_t)o->n_out, n_row = (uint64_t)o->n_row;
    int code = lt.layout_set(p->w, LT_LAYOUT_COLS, &n_out, sizeof n_out);
    if (!code)
        code = lt.layout_set(p->x, LT_LAYOUT_COLS, &n_row, sizeof n_row);
    if (!code)
        code = lt.layout_set(p->out, LT_LAYOUT_ROWS, &n_out, sizeof n_out);
    if (!code)
        code = lt.layout_set(p->out, LT_LAYOUT_COLS, &n_row, sizeof n_row);
    if (code)
        return code;
    return lt.multiply(b, p->desc, &one, o->w, p->w, o->x, p->x, &beta, o->out, p->out, o->out, p->out, &p->algo,
                       o->workspace, WORKSPACE_BYTES, s);
}

static const char *error_text(int code)
{
    return lt.status_string ? lt.status_string(code) : "unknown";
}

static const struct blas_api api = {
    .name = "cuBLASLt",
    .piece_bytes = PIECE_BYTES,
    .workspace_bytes = WORKSPACE_BYTES,
    .find = find,
    .open = open_library,
    .close = close_library,
    .plan = plan,
    .forget = forget,
    .run = run,
    .error_text = error_text,
};

const struct blas_api *blas_cublaslt(void)
{
    return &api;
}
