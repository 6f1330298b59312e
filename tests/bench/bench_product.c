/* Times the weight products alone, one thread, each format and several row counts:
 *
 *     bench_product [-i portable|avx2|avx512|avx512vnni|amx] [-t Q8_0] [-k columns] [-s seconds a figure]
 *
 * `cached`: one panel of weights again and again, which is what arithmetic allows, against the 8-bit peak (for float
 * formats that peak means little). `streamed`: panels of a matrix too large for the caches, which is what a step does,
 * in GB/s of weights against the read bandwidth. Roofs are measured beside each format. The best of many passes counts:
 * on a shared machine the others tell of neighbours. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "rng.h"
#include "roof.h"
#include "wake.h"

enum { STREAM_BYTES = 256 << 20, PASS_NS = 1000000 };

static const struct {
    const char *name;
    int type;
} formats[] = {{"Q8_0", DT_Q8_0},   {"Q4_0", DT_Q4_0}, {"Q4_K", DT_Q4_K}, {"Q5_K", DT_Q5_K}, {"Q6_K", DT_Q6_K},
               {"MXFP4", DT_MXFP4}, {"FP8", DT_FP8},   {"BF16", DT_BF16}, {"F16", DT_F16},   {"F32", DT_F32}};

static const int32_t row_counts[] = {1, 2, 4, 8, 12, 16};

struct bench {
    const struct cpu_isa *isa;
    struct weight w;
    struct region memory;
    union act_line *line;
    float *y;
    double seconds;
};

static void check(int rc, const struct err *e)
{
    if (rc) {
        fprintf(stderr, "bench_product: %s\n", e->msg);
        exit(1);
    }
}

/* Random codes, small scales: no product is anything but a number. */
static void fill(struct bench *b, const char *format, int type, int32_t n_in)
{
    struct err e = {0};
    struct tensor t = {.type = type, .n_row = PANEL, .n_col = n_in};
    check(weight_plan(&t, &b->w, &e), &e);
    int32_t n_panel = (int32_t)(STREAM_BYTES / b->w.panel_bytes);
    check(region_create(&b->memory, b->w.panel_bytes * (size_t)n_panel, &e), &e);
    float *row = malloc(sizeof *row * (size_t)n_in);
    size_t row_bytes = dtype_row_bytes(type, n_in);
    uint8_t *file = malloc(row_bytes * PANEL);
    if (!row || !file)
        check(err_set(&e, ERR_NOMEM, "out of memory: %s", format), &e);
    for (int r = 0; r < PANEL; r++) {
        for (int32_t i = 0; i < n_in; i++)
            row[i] = rng_unit((uint32_t)rng_mix((uint64_t)r << 32 | (uint32_t)i)) - 0.5f;
        dtype_from_f32(type, row, file + row_bytes * (size_t)r, n_in);
    }
    t.data = file;
    b->w.data = (uint8_t *)b->memory.base;
    weight_pack(&b->w, &t, 0, 1);
    for (int32_t p = 1; p < n_panel; p++)
        memcpy(b->w.data + b->w.panel_bytes * (size_t)p, b->w.data, b->w.panel_bytes);
    b->w.n_panel = n_panel;
    for (int32_t r = 0; r < MAX_TILE; r++) {
        union act_line *line = b->line + r;
        b->isa->lines[act_kind_of(b->isa, b->w.pack)](row, n_in, line, MAX_TILE);
    }
    free(row);
    free(file);
}

/* Seconds that n_row rows and a panel take, of those that are taken together, the best pass; `step` panels on at each
 * call, 0: always the first. */
static double time_panel(struct bench *b, int32_t n_row, int32_t step)
{
    enum act_kind kind = act_kind_of(b->isa, b->w.pack);
    struct panel_job j = {.panel_bytes = b->w.panel_bytes,
                          .n_panel = product_panels(kind, n_row),
                          .a = b->line,
                          .n_line = act_lines(kind, b->w.n_in),
                          .n_row = n_row,
                          .y = b->y,
                          .stride = PRODUCT_PANELS * PANEL};
    double best = 1e9;
    int32_t panel = 0;
    for (int64_t from = clock_ns(), end = from + (int64_t)(b->seconds * 1e9); from < end;) {
        int64_t now = from;
        long n = 0;
        for (; now - from < PASS_NS; now = clock_ns(), n++) {
            j.w = b->w.data + b->w.panel_bytes * (size_t)panel;
            b->isa->product[b->w.pack](&j);
            panel = (panel + step * j.n_panel) % (b->w.n_panel - PRODUCT_PANELS);
        }
        double each = (double)(now - from) * 1e-9 / (double)n / j.n_panel;
        best = each < best ? each : best;
        from = now;
    }
    return best;
}

static void measure(struct bench *b, struct roof *roof, const char *format, int32_t n_in)
{
    double peak = roof_int8(roof, b->seconds).best, read = roof_read(roof, b->seconds).best;
    double flop = 2.0 * PANEL * n_in;
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        int32_t n = row_counts[i];
        if (n > b->isa->tile)
            break;
        double cached = time_panel(b, n, 0), streamed = time_panel(b, n, 1);
        double gop = flop * n / cached * 1e-9, gb = (double)b->w.panel_bytes / streamed * 1e-9;
        printf("%-6s rows %2d   cached %7.1f GOP/s %5.1f%% of %.0f   streamed %5.1f GB/s %5.1f%% of %.1f\n", format, n,
               gop, 100 * gop / peak, peak, gb, 100 * gb / read, read);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    static struct bench b = {.seconds = 0.3};
    const char *only = NULL;
    int32_t n_in = 2048;
    for (int opt; (opt = getopt(argc, argv, "i:t:k:s:")) != -1;) {
        if (opt == 'i')
            setenv("GALLEY_CPU_ISA", optarg, 1);
        else if (opt == 't')
            only = optarg;
        else if (opt == 'k')
            n_in = atoi(optarg) / 256 * 256;
        else if (opt == 's')
            b.seconds = atof(optarg);
        else
            return 2;
    }
    struct err e = {0};
    struct roof *roof = NULL;
    check(cpu_isa_choose(&b.isa, &e), &e);
    check(roof_create(&roof, 1, &e), &e);
    b.line = aligned_alloc(64, sizeof *b.line * MAX_TILE * (size_t)n_in / F_LINE);
    b.y = aligned_alloc(64, sizeof *b.y * MAX_TILE * PRODUCT_PANELS * PANEL);
    if (!b.line || !b.y || n_in < 256)
        return 2;
    printf("%s, one thread, %d columns\n", b.isa->name, n_in);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (only && strcmp(only, formats[i].name))
            continue;
        fill(&b, formats[i].name, formats[i].type, n_in);
        measure(&b, roof, formats[i].name, n_in);
        region_free(&b.memory);
    }
    roof_free(roof);
    free(b.line);
    free(b.y);
    return 0;
}
