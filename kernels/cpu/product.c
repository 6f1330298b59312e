#include "product.h"

/* Activations of this size stay in the second-level cache while a panel passes over them. */
static const size_t CACHED_BYTES = 1 << 20;

void acts_begin(const struct cpu_isa *isa, struct acts *acts, int32_t n_row, int32_t n)
{
    for (enum act_kind kind = 0; kind < N_ACT; kind++) {
        struct act *a = &acts->kind[kind];
        a->n_row = n_row;
        a->n_line = act_lines(kind, n);
        a->n_tile = (n_row + isa->tile - 1) / isa->tile;
    }
}

union act_line *act_line_at(const struct act *a, int32_t i, size_t *stride)
{
    int32_t t = (int32_t)((int64_t)i * a->n_tile / a->n_row);
    while (act_row0(a, t + 1) <= i)
        t++;
    int32_t row0 = act_row0(a, t);
    *stride = (size_t)(act_row0(a, t + 1) - row0);
    return a->line + (size_t)row0 * (size_t)a->n_line + (i - row0);
}

/* What a kernel left in buf[tile row][panel columns] goes to its rows of out. */
static void finish(const struct cpu_isa *isa, const struct product *p, int32_t panel, int32_t n_panel, int32_t row0,
                   int32_t n_row, float *buf)
{
    const size_t width = PRODUCT_PANELS * PANEL;
    int32_t col = panel * PANEL, n = n_panel * PANEL;
    if (p->how == PRODUCT_ADD && col + n > p->n_out)
        n = p->n_out - col;
    for (int32_t i = 0; i < n_row; i++) {
        float *from = buf + (size_t)i * width, *out = p->out + (size_t)p->row[row0 + i] * p->stride + col;
        if (p->how == PRODUCT_SILU)
            isa->silu_mul(from, from + MAX_TILE * width, n);
        if (p->how == PRODUCT_GELU)
            isa->gelu_mul(from, from + MAX_TILE * width, n);
        if (p->how == PRODUCT_ADD)
            for (int32_t c = 0; c < n; c++)
                out[c] += from[c] * p->scale;
        else if (p->bias)
            for (int32_t c = 0; c < n; c++)
                out[c] = from[c] + p->bias[col + c];
        else
            for (int32_t c = 0; c < n; c++)
                out[c] = from[c];
    }
}

static void one_tile(const struct cpu_isa *isa, const struct weight *w, const struct acts *acts, int32_t panel,
                     int32_t n_panel, int32_t tile, float *buf)
{
    const struct act *a = &acts->kind[act_kind_of(isa, w->pack)];
    int32_t row0 = act_row0(a, tile);
    isa->product[w->pack](&(struct panel_job){
        .w = w->data + (size_t)panel * w->panel_bytes,
        .panel_bytes = w->panel_bytes,
        .n_panel = n_panel,
        .a = a->line + (size_t)row0 * (size_t)a->n_line,
        .n_line = a->n_line,
        .n_row = act_row0(a, tile + 1) - row0,
        .y = buf,
        .stride = PRODUCT_PANELS * PANEL,
    });
}

void product_run(const struct cpu_isa *isa, const struct product *p, int32_t p0, int32_t p1, float *buf)
{
    enum act_kind kind = act_kind_of(isa, p->w->pack);
    const struct act *a = &p->acts->kind[kind];
    size_t tile_bytes = sizeof *a->line * (size_t)a->n_line * (size_t)isa->tile;
    int32_t together = tile_bytes < CACHED_BYTES ? (int32_t)(CACHED_BYTES / tile_bytes) : 1;
    int32_t step = product_panels(kind, a->n_row);
    for (int32_t t0 = 0; t0 < a->n_tile; t0 += together) {
        int32_t t1 = t0 + together < a->n_tile ? t0 + together : a->n_tile;
        for (int32_t panel = p0; panel < p1; panel += step) {
            int32_t n = p1 - panel < step ? p1 - panel : step;
            for (int32_t t = t0; t < t1; t++) {
                one_tile(isa, p->w, p->acts, panel, n, t, buf);
                if (p->up)
                    one_tile(isa, p->up, p->acts, panel, n, t, buf + MAX_TILE * PRODUCT_PANELS * PANEL);
                finish(isa, p, panel, n, act_row0(a, t), act_row0(a, t + 1) - act_row0(a, t), buf);
            }
        }
    }
}
