/* Times what happens to single rows between the products, one thread, rows that stay in the first caches:
 *
 *     bench_rows [-n elements] [-s seconds a figure]        GALLEY_CPU_ISA chooses the instruction set
 *
 * Nanoseconds of the best pass, GB/s of what is read and written, and the share that this is of a weight product's
 * time: of reading a matrix of as many columns and 2048 rows in Q8_0 at the read bandwidth measured beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "isa.h"
#include "rng.h"
#include "roof.h"
#include "wake.h"

enum { PASS = 64, MATRIX_ROWS = 2048 };

struct bench {
    const struct cpu_isa *isa;
    int32_t n;
    double seconds, read_gb_s;
    float *x, *y, *out;
    union act_line *line;
    volatile float sink;
};

enum kind { RMS_NORM, SILU_MUL, LINES_INT, LINES_F32, DOT, DOT_F16, STORE_F16, STORE_BF16, STORE_Q8_0, N_KIND };

static const struct {
    const char *name;
    double bytes; /* read and written for each element */
} kinds[N_KIND] = {[RMS_NORM] = {"norm", 12},
                   [SILU_MUL] = {"silu(gate) * up", 12},
                   [LINES_INT] = {"to 8 bits", 6},
                   [LINES_F32] = {"to lines of f32", 8},
                   [DOT] = {"dot", 8},
                   [DOT_F16] = {"dot of f16", 4},
                   [STORE_F16] = {"K/V to f16", 6},
                   [STORE_BF16] = {"K/V to bf16", 6},
                   [STORE_Q8_0] = {"K/V to q8_0", 5.1}};

static void run(struct bench *b, enum kind kind)
{
    const struct cpu_isa *isa = b->isa;
    switch (kind) {
    case RMS_NORM:
        isa->rms_norm(b->x, b->y, b->out, b->n, 1e-5f);
        break;
    case SILU_MUL:
        isa->silu_mul(b->out, b->y, b->n);
        break;
    case LINES_INT:
        isa->lines[ACT_INT](b->x, b->n, b->line, 1);
        break;
    case LINES_F32:
        isa->lines[ACT_F32](b->x, b->n, b->line, 1);
        break;
    case DOT:
        b->sink = isa->dot(b->x, b->y, b->n);
        break;
    case DOT_F16:
        b->sink = isa->dot_f16((const uint16_t *)(const void *)b->line, (const uint16_t *)(const void *)b->line, b->n);
        break;
    case STORE_F16:
        isa->kv_store(DT_F16, b->x, b->line, b->n);
        break;
    case STORE_BF16:
        isa->kv_store(DT_BF16, b->x, b->line, b->n);
        break;
    default:
        isa->kv_store(DT_Q8_0, b->x, b->line, b->n);
    }
}

static void measure(struct bench *b, enum kind kind)
{
    double best = 1e9, product = MATRIX_ROWS * (double)b->n * 34 / 32 / (b->read_gb_s * 1e9);
    memset(b->line, 0, sizeof *b->line * (size_t)(b->n / F_LINE + 1)); /* halves of what was there are no numbers */
    memcpy(b->out, b->x, sizeof *b->x * (size_t)b->n);
    for (int64_t end = clock_ns() + (int64_t)(b->seconds * 1e9), from = clock_ns(); from < end; from = clock_ns()) {
        for (int i = 0; i < PASS; i++)
            run(b, kind);
        double s = (double)(clock_ns() - from) * 1e-9 / PASS;
        best = s < best ? s : best;
    }
    printf("%-18s %9.0f ns %8.2f GB/s %8.3f%%\n", kinds[kind].name, best * 1e9, kinds[kind].bytes * b->n * 1e-9 / best,
           100 * best / product);
}

static void check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_rows: %s\n", e->msg);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static struct bench b = {.n = 2048, .seconds = 0.2};
    struct err e = {0};
    struct roof *roof;
    for (int opt; (opt = getopt(argc, argv, "n:s:")) != -1;) {
        if (opt == 'n')
            b.n = atoi(optarg) / 32 * 32;
        else if (opt == 's')
            b.seconds = atof(optarg);
        else
            return 2;
    }
    if (b.n < 32)
        return 2;
    check(cpu_isa_choose(&b.isa, &e), &e);
    check(roof_create(&roof, 1, &e), &e);
    b.read_gb_s = roof_read(roof, 0.5).best;
    size_t bytes = sizeof(float) * (size_t)(b.n + F_LINE);
    b.x = aligned_alloc(64, bytes);
    b.y = aligned_alloc(64, bytes);
    b.out = aligned_alloc(64, bytes);
    b.line = aligned_alloc(64, sizeof *b.line * (size_t)(b.n / F_LINE + 1));
    if (!b.x || !b.y || !b.out || !b.line)
        check(err_set(&e, ERR_NOMEM, "out of memory"), &e);
    for (int32_t i = 0; i < b.n; i++) {
        b.x[i] = rng_unit((uint32_t)rng_mix((uint64_t)i)) - 0.5f;
        b.y[i] = rng_unit((uint32_t)rng_mix((uint64_t)i + (UINT64_C(1) << 32)));
    }
    printf("%s, rows of %d, reading %.1f GB/s\n", b.isa->name, b.n, b.read_gb_s);
    for (int kind = 0; kind < N_KIND; kind++)
        measure(&b, (enum kind)kind);
    roof_free(roof);
    free(b.x);
    free(b.y);
    free(b.out);
    free(b.line);
    return 0;
}
