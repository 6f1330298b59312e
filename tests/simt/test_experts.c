/* experts.cu, and the products of a group of weights (gemm_skinny.cu, gemm_wide.cu), against plain loops in double
 * precision; and a row among others bitwise against the row alone. */
#include <string.h>

#include "experts.h"
#include "gemm_case.h"
#include "simt.h"
#include "values.h"
#include "../unit/suite.h"

/* ---- Routes ---- */

struct routes { /* owner: the test */
    struct expert_routes is;
    int32_t *slot;
};

static void *blank(size_t n) /* what was there before */
{
    return memset(malloc(n ? n * 4 : 1), 0xa5, n * 4);
}

static void routes_open(struct routes *r, int32_t n_row, int32_t n_expert, int32_t n_used, uint64_t seed)
{
    size_t n_place = (size_t)(n_row * n_used);
    r->is = (struct expert_routes){.n_row = n_row, .n_expert = n_expert, .n_used = n_used};
    r->is.logit = values_f32(seed, (size_t)(n_row * n_expert), 4);
    r->is.expert = blank(n_place);
    r->is.share = blank(n_place);
    r->is.place = blank(n_place);
    r->is.first = blank((size_t)n_expert + 1);
    r->is.row = blank(n_place);
    r->slot = calloc((size_t)n_row, sizeof *r->slot);
}

static void routes_close(struct routes *r)
{
    free(r->is.logit), free(r->is.expert), free(r->is.share), free(r->is.place), free(r->is.first), free(r->is.row);
    free(r->slot);
}

/* The j-th best expert of a row: the first one of those with the largest logit that were not taken. */
static int32_t best_of(const float *logit, int32_t n, bool *taken)
{
    int32_t best = -1;
    for (int32_t x = 0; x < n; x++)
        if (!taken[x] && (best < 0 || logit[x] > logit[best]))
            best = x;
    taken[best] = true;
    return best;
}

static void check_row(const struct routes *r, int32_t row, int sum_1)
{
    const struct expert_routes *is = &r->is;
    const float *logit = is->logit + row * is->n_expert;
    const int32_t *expert = is->expert + row * is->n_used;
    bool taken[1024] = {0};
    double top = -INFINITY, sum = 0;
    for (int32_t x = 0; x < is->n_expert; x++)
        top = fmax(top, logit[x]);
    for (int32_t j = 0; j < is->n_used; j++) {
        int32_t best = best_of(logit, is->n_expert, taken), want = r->slot[row] < 0 ? -1 : best;
        ck_assert_msg(expert[j] == want, "row %d, choice %d: expert %d, not %d", row, j, expert[j], want);
    }
    for (int32_t x = 0; x < is->n_expert; x++)
        sum += !sum_1 || taken[x] ? exp(logit[x] - top) : 0;
    for (int32_t j = 0; j < is->n_used && r->slot[row] >= 0; j++)
        CK_CLOSE(is->share[row * is->n_used + j], exp(logit[expert[j]] - top) / sum, 2e-6, "row %d, choice %d", row, j);
}

/* Places go by expert and then by row, and nobody has another's. */
static void check_places(const struct routes *r)
{
    const struct expert_routes *is = &r->is;
    int32_t next = 0;
    for (int32_t x = 0; x < is->n_expert; x++) {
        ck_assert_msg(is->first[x] == next, "expert %d begins at %d, not %d", x, is->first[x], next);
        for (int32_t i = 0; i < is->n_row * is->n_used; i++)
            if (is->expert[i] == x) {
                ck_assert_msg(is->place[i] == next && is->row[next] == i / is->n_used,
                              "expert %d, row %d: place %d of row %d, not %d", x, i / is->n_used, is->place[i],
                              is->row[next], next);
                next++;
            }
    }
    ck_assert_int_eq(is->first[is->n_expert], next);
}

static void route_and_check(struct routes *r, int sum_1)
{
    experts_route(&r->is, r->slot, sum_1, NULL);
    for (int32_t row = 0; row < r->is.n_row; row++)
        check_row(r, row, sum_1);
    check_places(r);
}

static const struct {
    int32_t n_row, n_expert, n_used;
} shapes[] = {{1, 1, 1},  {1, 8, 2},    {3, 5, 5},   {7, 33, 3},   {64, 8, 2},
              {65, 2, 1}, {300, 60, 4}, {9, 128, 8}, {2, 1000, 64}};
enum { N_SHAPE = sizeof shapes / sizeof *shapes };

START_TEST(test_routes)
{
    for (int sum_1 = 0; sum_1 < 2; sum_1++) {
        struct routes r;
        simt_seed((uint64_t)(_i * 2 + sum_1));
        routes_open(&r, shapes[_i].n_row, shapes[_i].n_expert, shapes[_i].n_used, (uint64_t)_i);
        route_and_check(&r, sum_1);
        routes_close(&r);
    }
}
END_TEST

/* Few values for many experts, zeros of both signs among them. */
START_TEST(test_ties)
{
    struct routes r;
    simt_seed((uint64_t)_i);
    routes_open(&r, shapes[_i].n_row, shapes[_i].n_expert, shapes[_i].n_used, 5);
    for (int32_t i = 0; i < r.is.n_row * r.is.n_expert; i++) {
        int32_t level = value_int(5, (uint64_t)i, -2, 1);
        r.is.logit[i] = level == -2 ? -0.0f : (float)level;
    }
    route_and_check(&r, 1);
    routes_close(&r);
}
END_TEST

/* Padding goes nowhere, and nobody sees it. */
START_TEST(test_padding)
{
    struct routes r;
    simt_seed((uint64_t)_i);
    routes_open(&r, shapes[_i].n_row, shapes[_i].n_expert, shapes[_i].n_used, 6);
    for (int32_t row = 0; row < r.is.n_row; row++)
        r.slot[row] = row % 3 == 1 || r.is.n_row == 1 ? -1 : row;
    route_and_check(&r, 0);
    routes_close(&r);
}
END_TEST

/* All rows through one expert, and none through the others. */
START_TEST(test_one_expert_has_all)
{
    static const int32_t chosen[] = {0, 17, 39};
    for (int i = 0; i < 3; i++) {
        struct routes r;
        simt_seed((uint64_t)i);
        routes_open(&r, 130, 40, 1, 7);
        for (int32_t row = 0; row < 130; row++)
            r.is.logit[row * 40 + chosen[i]] = 9;
        route_and_check(&r, 1);
        for (int32_t x = 0; x <= 40; x++)
            ck_assert_int_eq(r.is.first[x], x > chosen[i] ? 130 : 0);
        routes_close(&r);
    }
}
END_TEST

/* A row of NaN, of whatever bits, still goes through as many experts as others, each once: nobody's place is lost. */
START_TEST(test_nan_has_places)
{
    static const uint32_t bits[] = {0x7fffffff, 0xffffffff, 0x7fc00000, 0xffc00000};
    for (int i = 0; i < 4; i++) {
        struct routes r;
        routes_open(&r, 5, 6, 6, 8);
        for (int32_t x = 0; x < 6; x++)
            memcpy(&r.is.logit[2 * 6 + x], &bits[i], 4);
        experts_route(&r.is, r.slot, 1, NULL);
        for (int32_t row = 0; row < 5; row++)
            if (row != 2)
                check_row(&r, row, 1);
        check_places(&r);
        for (int32_t x = 0; x < 6; x++)
            ck_assert_int_eq(r.is.first[x + 1] - r.is.first[x], 5);
        routes_close(&r);
    }
}
END_TEST

/* ---- Sums over experts ---- */

START_TEST(test_combine)
{
    static const int32_t widths[] = {4, 60, 132, 896, 4096};
    for (int w = 0; w < 5; w++)
        for (int add = 0; add < 2; add++) {
            enum { N_ROW = 5, N_USED = 3 };
            struct routes r;
            int32_t n = widths[w];
            size_t size = (size_t)(N_ROW * n);
            simt_seed((uint64_t)w);
            routes_open(&r, N_ROW, 9, N_USED, (uint64_t)w);
            r.slot[3] = -1;
            experts_route(&r.is, r.slot, 1, NULL);
            float *y = values_f32(9, size * N_USED, 2), *out = values_f32(10, size, 3), *was = values_f32(10, size, 3);
            experts_combine(&(struct combine_args){.routes = r.is, .y = y, .out = out, .add = add, .n = n}, NULL);
            for (int32_t i = 0; i < N_ROW * n; i++) {
                double want = add ? was[i] : 0;
                for (int j = 0; j < N_USED && i / n != 3; j++) {
                    int32_t at = i / n * N_USED + j;
                    want += (double)r.is.share[at] * y[r.is.place[at] * n + i % n];
                }
                CK_CLOSE(out[i], want, 2e-6, "row %d, element %d of %d", i / n, i % n, n);
            }
            free(y), free(out), free(was);
            routes_close(&r);
        }
}
END_TEST

/* The likeliest first: what is small goes under if it is not added last. */
START_TEST(test_order_of_a_sum)
{
    struct routes r;
    float y[3 * 4], out[4] = {5, 5, 5, 5};
    routes_open(&r, 1, 3, 3, 1);
    static const float logit[] = {1, 3, 2}, of[] = {1, 0x1p30f, -0x1p30f};
    memcpy(r.is.logit, logit, sizeof logit);
    experts_route(&r.is, r.slot, 1, NULL);
    for (int i = 0; i < 12; i++)
        y[i] = of[i / 4];
    for (int j = 0; j < 3; j++)
        r.is.share[j] = 0.5f;
    experts_combine(&(struct combine_args){.routes = r.is, .y = y, .out = out, .n = 4}, NULL);
    for (int i = 0; i < 4; i++)
        ck_assert(out[i] == 0.5f);
    routes_close(&r);
}
END_TEST

/* ---- Products ---- */

/* GAP: elements between the rows of a result, which must stay as they were; MANY: places of a weight. */
enum { MAX_WEIGHT = 70, GAP = 3, MANY = 256 };

struct group { /* owner: the test */
    struct gemm_source w[MAX_WEIGHT];
    struct gemm_group is;
    struct gemm_args args;
    uint16_t *x; /* [n_x][n_in + 8] */
    char *packed;
    int32_t *first, *row;
    int32_t n_all;        /* weights; the product is of those that `is` names */
    int32_t n_x, n_place; /* places there are: the arguments have room for more */
};

/* count: places of each weight. x: by row, of n_x rows; with n_x 0 by place. */
static void group_open(struct group *g, enum gemm_format f, int32_t n_matrix, int32_t n_out, int32_t n_in,
                       int32_t n_weight, const int32_t *count, int32_t n_x, uint64_t seed)
{
    g->first = malloc((size_t)(n_weight + 1) * sizeof *g->first);
    g->first[0] = 0;
    int32_t most = 0;
    for (int32_t w = 0; w < n_weight; w++) {
        gemm_case_open(&g->w[w], f, n_matrix, n_out, n_in, seed + (uint64_t)w);
        g->first[w + 1] = g->first[w] + count[w];
        most = count[w] > most ? count[w] : most;
    }
    size_t bytes = gemm_weight_bytes(&g->w[0].weight);
    g->packed = aligned_alloc(16, bytes * (size_t)n_weight);
    for (int32_t w = 0; w < n_weight; w++)
        memcpy(g->packed + bytes * (size_t)w, g->w[w].weight.data, bytes);
    g->n_all = n_weight;
    g->n_place = g->first[n_weight];
    g->n_x = n_x ? n_x : g->n_place;
    g->row = malloc((size_t)(g->n_place + 1) * sizeof *g->row);
    for (int32_t p = 0; p < g->n_place; p++)
        g->row[p] = n_x ? value_int(seed, (uint64_t)p, 0, n_x - 1) : p;
    g->x = values_bf16(seed + 7, (size_t)(g->n_x + 1) * (size_t)(n_in + 8), 1);
    g->is = (struct gemm_group){
        .n_weight = n_weight, .most = most, .weight_bytes = bytes, .first = g->first, .row = n_x ? g->row : NULL};
    g->args = (struct gemm_args){.weight = g->w[0].weight,
                                 .group = &g->is,
                                 .x = (const struct bf16 *)g->x,
                                 .n_row = g->n_place + value_int(seed, 99, 1, 40),
                                 .x_stride = n_in + 8,
                                 .out_stride = n_out + GAP};
    g->args.weight.data = g->packed;
    g->is.mean = (g->args.n_row + n_weight - 1) / n_weight;
}

/* Leaves the product n of the weights: number[i] in ascending order. */
static void group_choose(struct group *g, const int32_t *number, int32_t n)
{
    size_t bytes = g->is.weight_bytes;
    for (int32_t i = 0; i < n; i++)
        memcpy(g->packed + bytes * (size_t)i, g->w[number[i]].weight.data, bytes);
    memset(g->packed + bytes * (size_t)n, 0x7f, bytes * (size_t)(g->n_all - n));
    g->is.n_weight = n;
    g->is.number = number;
}

static bool group_has(const struct group *g, int32_t w)
{
    bool has = !g->is.number;
    for (int32_t i = 0; i < g->is.n_weight && !has; i++)
        has = g->is.number[i] == w;
    return has;
}

static void group_close(struct group *g)
{
    for (int32_t w = 0; w < g->n_all; w++)
        gemm_case_close(&g->w[w]);
    free(g->x), free(g->packed), free(g->first), free(g->row);
}

static int32_t weight_of(const struct group *g, int32_t place)
{
    int32_t w = 0;
    while (g->first[w + 1] <= place)
        w++;
    return w;
}

static float *group_blank(const struct group *g)
{
    return values_f32(77, (size_t)g->args.n_row * (size_t)g->args.out_stride, 1);
}

/* Sums in f32 of exact products: see test_gemm.c. */
static void check_place(const struct group *g, int32_t p, const float *out)
{
    const struct gemm_source *s = &g->w[weight_of(g, p)];
    int32_t n_in = s->weight.n_in;
    float *row = malloc((size_t)n_in * sizeof *row);
    for (int32_t o = 0; o < s->weight.n_out; o++) {
        double want = 0, slack = 0;
        gemm_case_unpack(&s->weight, 0, o, row);
        for (int32_t k = 0; k < n_in; k++) {
            double y = (double)row[k] * bf16_to_f32(g->x[g->row[p] * g->args.x_stride + k]);
            want += y;
            slack += fabs(y);
        }
        CK_CLOSE(out[p * g->args.out_stride + o], want, 2e-6 * slack + 2e-5, "format %d, place %d of %d, output %d",
                 s->weight.format, p, g->n_place, o);
    }
    free(row);
}

/* A place's row alone, as a product of its weight. */
static void same_alone(const struct group *g, int32_t p, const void *out, size_t element)
{
    char *alone = malloc((size_t)g->args.out_stride * 4);
    struct gemm_args a = g->args;
    size_t n = (size_t)a.weight.n_out * element;
    a.weight.data = g->w[weight_of(g, p)].weight.data;
    a.group = NULL;
    a.n_row = 1;
    a.x = (const struct bf16 *)(g->x + g->row[p] * a.x_stride);
    a.out = (float *)(void *)alone;
    a.out_bf16 = (struct bf16 *)(void *)alone;
    gemm_launch(&a, NULL);
    ck_assert_msg(!memcmp(alone, (const char *)out + (size_t)p * (size_t)a.out_stride * element, n),
                  "format %d: place %d of %d differs from its row alone", a.weight.format, p, g->n_place);
    free(alone);
}

static void run_group(struct group *g, void (*run)(const struct gemm_args *, struct CUstream_st *))
{
    float *out = group_blank(g), *before = group_blank(g);
    int32_t stride = g->args.out_stride, n_out = g->args.weight.n_out;
    g->args.out = out;
    run(&g->args, NULL);
    for (int32_t p = 0; p < g->args.n_row; p++) {
        bool written = p < g->n_place && group_has(g, weight_of(g, p));
        if (written) {
            check_place(g, p, out);
            same_alone(g, p, out, sizeof *out);
        }
        for (int32_t o = written ? n_out : 0; o < stride; o++)
            ck_assert(out[p * stride + o] == before[p * stride + o]);
    }
    free(out), free(before);
}

static int32_t columns_of(enum gemm_format f, int n_block)
{
    int len = dtype_info(gemm_case_type(f))->block_len;
    return len == 1 ? n_block * 32 + 8 : len * n_block;
}

/* None, one, a tile and one more, many. */
static const int32_t thin[] = {0, 3, 17, 0, 8, 1}, few[] = {1, 0, 2}, thick[] = {65, 0, 33, 1};

START_TEST(test_group_formats)
{
    for (int by_row = 0; by_row < 2; by_row++) {
        struct group g;
        enum gemm_format f = (enum gemm_format)_i;
        int32_t n_in = columns_of(f, 3);
        simt_seed((uint64_t)(_i * 2 + by_row));
        group_open(&g, f, 1, 37, n_in, 6, thin, by_row * 20, 1);
        if (f != GEMM_F32)
            run_group(&g, gemm_skinny);
        run_group(&g, gemm_wide);
        group_close(&g);
        group_open(&g, f, 1, 16, n_in, 3, few, by_row * 2, 2);
        run_group(&g, gemm_launch);
        group_close(&g);
        group_open(&g, f, 1, 150, n_in, 4, thick, by_row * 70, 3);
        g.is.mean = by_row ? MANY : 0; /* in wide tiles, or in narrow ones */
        run_group(&g, gemm_wide);
        group_close(&g);
    }
}
END_TEST

/* One place alone; all of them in one weight, the first, one within and the last; more weights than a warp has lanes.
 */
START_TEST(test_group_extremes)
{
    static const int32_t at[] = {0, 31, 32, 63, 64, MAX_WEIGHT - 1};
    for (int i = 0; i < 6; i++)
        for (int n = 1; n <= 20; n += 19) {
            struct group g;
            int32_t count[MAX_WEIGHT] = {0};
            count[at[i]] = n;
            simt_seed((uint64_t)i);
            group_open(&g, GEMM_Q8_0, 1, 20, 64, MAX_WEIGHT, count, 0, (uint64_t)i);
            run_group(&g, gemm_skinny);
            run_group(&g, gemm_wide);
            group_close(&g);
        }
}
END_TEST

/* A place in each of many weights. */
START_TEST(test_group_of_many)
{
    struct group g;
    int32_t count[MAX_WEIGHT];
    for (int32_t w = 0; w < MAX_WEIGHT; w++)
        count[w] = w % 3 ? 1 + w % 2 : 0;
    simt_seed(4);
    group_open(&g, GEMM_BF16, 1, 17, 72, MAX_WEIGHT, count, 9, 4);
    run_group(&g, gemm_launch);
    run_group(&g, gemm_wide);
    group_close(&g);
}
END_TEST

/* Tiles are 64 places, and 128 where a weight is likely to have many; F32's stay narrow. The last is not full. */
START_TEST(test_group_tiles)
{
    static const int32_t count[] = {130, 0, 128, 1};
    for (int i = 0; i < 3; i++) {
        struct group g;
        struct gemm_tiles t;
        simt_seed((uint64_t)i);
        group_open(&g, i == 2 ? GEMM_F32 : i ? GEMM_Q8_0 : GEMM_BF16, 1, 20, 64, 4, count, i * 90, 8);
        gemm_tiles(&g.args, &t);
        ck_assert_int_eq(t.rows, 64);
        g.is.mean = MANY;
        gemm_tiles(&g.args, &t);
        ck_assert_int_eq(t.rows, i == 2 ? 64 : 128);
        ck_assert_int_ge(t.n_row_tile, i == 2 ? 6 : 4);
        run_group(&g, gemm_launch);
        group_close(&g);
    }
}
END_TEST

/* Some of the weights, as experts of one format among others: the others' places are not touched. */
START_TEST(test_group_of_some)
{
    static const int32_t odd[] = {1, 3, 5}, last[] = {5}, empty[] = {0, 3}, all[] = {0, 1, 2, 3, 4, 5};
    static const struct {
        const int32_t *number;
        int32_t n;
    } chosen[] = {{odd, 3}, {last, 1}, {empty, 2}, {all, 6}};
    for (int i = 0; i < 4; i++)
        for (int by_row = 0; by_row < 2; by_row++) {
            struct group g;
            simt_seed((uint64_t)(_i * 8 + i * 2 + by_row));
            group_open(&g, _i ? GEMM_Q8_0 : GEMM_BF16, 1, 37, 96, 6, thin, by_row * 20, (uint64_t)(20 + i));
            group_choose(&g, chosen[i].number, chosen[i].n);
            run_group(&g, gemm_skinny);
            run_group(&g, gemm_wide);
            run_group(&g, gemm_launch);
            group_close(&g);
        }
}
END_TEST

/* More of them than a warp has lanes, with up to several tiles each. */
START_TEST(test_group_of_some_of_many)
{
    struct group g;
    int32_t count[MAX_WEIGHT], number[MAX_WEIGHT], n = 0;
    for (int32_t w = 0; w < MAX_WEIGHT; w++) {
        count[w] = w == 50 ? 40 : w % 4;
        if (w % 5)
            number[n++] = w;
    }
    simt_seed(5);
    group_open(&g, GEMM_Q8_0, 1, 20, 64, MAX_WEIGHT, count, 0, 5);
    group_choose(&g, number, n);
    ck_assert_int_gt(n, 32);
    run_group(&g, gemm_skinny);
    run_group(&g, gemm_wide);
    group_close(&g);
}
END_TEST

/* The tests above would fail without the numbers: places of other weights are written then. */
START_TEST(test_numbers_matter)
{
    static const int32_t number[] = {1, 4};
    struct group g;
    group_open(&g, GEMM_BF16, 1, 20, 64, 6, thin, 0, 6);
    group_choose(&g, number, 2);
    float *out = group_blank(&g), *before = group_blank(&g);
    g.args.out = out;
    g.is.number = NULL;
    gemm_skinny(&g.args, NULL);
    size_t others = (size_t)(g.first[2] * g.args.out_stride), all = (size_t)(g.n_place * g.args.out_stride);
    ck_assert(memcmp(out, before, others * sizeof *out));
    ck_assert(!memcmp(out + others, before + others, (all - others) * sizeof *out));
    free(out), free(before);
    group_close(&g);
}
END_TEST

START_TEST(test_group_glu)
{
    void (*const run[])(const struct gemm_args *, struct CUstream_st *) = {gemm_skinny, gemm_wide};
    for (int i = 0; i < 4; i++) {
        struct group g;
        simt_seed((uint64_t)i);
        group_open(&g, GEMM_Q8_0, 2, 37, 96, 6, thin, 20, 5);
        size_t n = (size_t)(g.args.n_row * g.args.out_stride);
        uint16_t *out = values_bf16(78, n, 1), *before = values_bf16(78, n, 1);
        g.args.epilogue = GEMM_GLU;
        g.args.gelu = i / 2;
        g.args.out_bf16 = (struct bf16 *)out;
        run[i % 2](&g.args, NULL);
        for (int32_t p = 0; p < g.n_place; p++)
            same_alone(&g, p, out, sizeof *out);
        size_t end = (size_t)(g.n_place * g.args.out_stride);
        ck_assert(!memcmp(out + end, before + end, (n - end) * sizeof *out));
        free(out), free(before);
        group_close(&g);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("experts");
    tcase_add_loop_test(tc, test_routes, 0, N_SHAPE);
    tcase_add_loop_test(tc, test_ties, 0, N_SHAPE);
    tcase_add_loop_test(tc, test_padding, 0, N_SHAPE);
    tcase_add_test(tc, test_one_expert_has_all);
    tcase_add_test(tc, test_nan_has_places);
    tcase_add_test(tc, test_combine);
    tcase_add_test(tc, test_order_of_a_sum);
    tcase_add_loop_test(tc, test_group_formats, 0, GEMM_N_FORMAT);
    tcase_add_test(tc, test_group_extremes);
    tcase_add_test(tc, test_group_of_many);
    tcase_add_test(tc, test_group_tiles);
    tcase_add_loop_test(tc, test_group_of_some, 0, 2);
    tcase_add_test(tc, test_group_of_some_of_many);
    tcase_add_test(tc, test_numbers_matter);
    tcase_add_test(tc, test_group_glu);
    return suite_run(tc);
}
