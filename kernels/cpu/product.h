/* Products of activations with packed weights: tiles of rows against panels of columns. Private to kernels/cpu. */
#ifndef GALLEY_CPU_PRODUCT_DRIVER_H
#define GALLEY_CPU_PRODUCT_DRIVER_H

#include "weight.h"

/* Rows as the kernels read them. Tile t holds rows act_row0(t) .. act_row0(t + 1) - 1 as [n_line][rows of the tile];
 * tiles are of nearly equal size. */
struct act {
    union act_line *line;
    int32_t n_row, n_line, n_tile;
};

struct acts { /* the kinds that rows can be needed in */
    struct act kind[N_ACT];
};

static inline enum act_kind act_kind_of(const struct cpu_isa *isa, enum pack pack)
{
    return pack_is_int(pack) ? ACT_INT : pack == PACK_BF16 && isa->lines[ACT_BF16] ? ACT_BF16 : ACT_F32;
}

/* A bit for its kind. */
static inline int act_use(const struct cpu_isa *isa, const struct weight *w)
{
    return 1 << act_kind_of(isa, w->pack);
}

/* Of a row of n elements. */
static inline int32_t act_lines(enum act_kind kind, int32_t n)
{
    return kind == ACT_F32 ? (n + F_LINE - 1) / F_LINE : (n + Q_LINE - 1) / Q_LINE * (kind == ACT_BF16 ? 2 : 1);
}

static inline int32_t act_row0(const struct act *a, int32_t tile)
{
    return (int32_t)((int64_t)a->n_row * tile / a->n_tile);
}

/* For n_row rows of n elements, of every kind. */
void acts_begin(const struct cpu_isa *isa, struct acts *a, int32_t n_row, int32_t n);
/* Where row i's first line is; the next ones follow at *stride lines. */
union act_line *act_line_at(const struct act *a, int32_t i, size_t *stride);

enum product_how {
    PRODUCT_STORE, /* out = product + bias */
    PRODUCT_ADD,   /* out += product * scale */
    PRODUCT_SILU,  /* out = silu(product) * (product with `up`) */
    PRODUCT_GELU,  /* out = gelu(product) * (product with `up`) */
};

struct product {
    const struct weight *w, *up;
    const struct acts *acts;
    const int32_t *row; /* activation row i goes to row row[i] of out */
    float *out;         /* [..][stride], stride a multiple of 16 that covers all panels, except: */
    size_t stride;
    int32_t n_out;     /* columns of out that exist, for ADD */
    float scale;       /* for ADD */
    const float *bias; /* padded to whole panels; may be NULL */
    enum product_how how;
};

/* Floats of the buffer that product_run needs, and the panels it takes at once. */
enum { PRODUCT_PANELS = 4, PRODUCT_BUF = 2 * MAX_TILE * PRODUCT_PANELS * PANEL };

/* Panels that are worth taking together: with few rows one alone gives too little to do at once. */
static inline int32_t product_panels(enum act_kind kind, int32_t n_row)
{
    return n_row <= 4 ? PRODUCT_PANELS : kind == ACT_BF16 ? 2 : 1;
}

/* Panels p0..p1-1 for all rows. */
void product_run(const struct cpu_isa *isa, const struct product *p, int32_t p0, int32_t p1, float *buf);

#endif
