#include "fake_blas.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "dtype.h"
#include "fake_graph.h"

enum { REFUSED = 15, FAILED = 13, PIECE_BYTES = 20000, WORKSPACE_BYTES = 4096 };

struct fake_blas_faults fake_blas_faults;
static atomic_long n_live, n_run;
static double clock_s; /* of one device */

struct blas {
    int unused;
};

struct blas_plan {
    struct blas_shape shape;
};

static int find(struct err *e)
{
    return fake_blas_faults.missing ? err_set(e, ERR_NOTFOUND, "libfakeblas.so: cannot open shared object file") : 0;
}

static int open_library(struct blas **out)
{
    *out = NULL;
    if (fake_blas_faults.closed)
        return FAILED;
    *out = calloc(1, sizeof **out);
    n_live++;
    return 0;
}

static void close_library(struct blas *b)
{
    n_live -= b != NULL;
    free(b);
}

static int plan(struct blas *b, const struct blas_shape *s, struct blas_plan **out)
{
    BUG_ON(!b);
    *out = NULL;
    if (fake_blas_faults.serves && s->n_out != fake_blas_faults.serves)
        return REFUSED;
    *out = malloc(sizeof **out);
    (*out)->shape = *s;
    n_live++;
    return 0;
}

static void forget(struct blas_plan *p)
{
    n_live -= p != NULL;
    free(p);
}

static const uint16_t *words(const struct bf16 *p)
{
    return (const uint16_t *)(const void *)p;
}

static int run(struct blas *b, struct blas_plan *p, const struct blas_operands *o, struct CUstream_st *s)
{
    const struct blas_shape *shape = &p->shape;
    const uint16_t *w = words(o->w), *x = words(o->x);
    (void)s;
    /* Graphs have own kernels alone. */
    BUG_ON(!b || fake_graph_spoil() || o->n_out > shape->n_out || o->n_row > shape->n_row);
    BUG_ON((uintptr_t)o->w % 256 || ((uintptr_t)o->x | (uintptr_t)o->out) % BLAS_ALIGN);
    n_run++;
    if (fake_blas_faults.fail_at && !--fake_blas_faults.fail_at)
        return FAILED;
    clock_s += fake_blas_faults.slow ? 9 : -0.1;
    *(char *)o->workspace = 1;
    ((char *)o->workspace)[WORKSPACE_BYTES - 1] = 1;
    for (int32_t r = 0; r < o->n_row; r++)
        for (int32_t i = 0; i < o->n_out; i++) {
            float sum = 0, *out = o->out + (int64_t)r * shape->out_stride + i;
            for (int32_t k = 0; k < shape->n_in; k++)
                sum += bf16_to_f32(w[(int64_t)i * shape->n_in + k]) * bf16_to_f32(x[(int64_t)r * shape->n_in + k]);
            *out = shape->add ? *out + sum : sum;
        }
    return 0;
}

static const char *error_text(int code)
{
    return code == REFUSED ? "not supported" : "execution failed";
}

const struct blas_api fake_blas = {
    .name = "fake",
    .piece_bytes = PIECE_BYTES,
    .workspace_bytes = WORKSPACE_BYTES,
    .always = true,
    .find = find,
    .open = open_library,
    .close = close_library,
    .plan = plan,
    .forget = forget,
    .run = run,
    .error_text = error_text,
};

static double tick(void)
{
    return clock_s += 1;
}

const struct blas_api *fake_blas_timed(void)
{
    static struct blas_api timed;
    timed = fake_blas;
    timed.always = false;
    timed.clock = tick;
    return &timed;
}

void fake_blas_reset(void)
{
    BUG_ON(n_live);
    fake_blas_faults = (struct fake_blas_faults){0};
    n_run = 0;
}

long fake_blas_live(void)
{
    return n_live;
}

long fake_blas_runs(void)
{
    return n_run;
}
