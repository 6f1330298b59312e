/* Loading: the file is read once, in its order, and let go of; packing gives what this version of the layout promises.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "random_plan.h"
#include "rng.h"
#include "slots.h"
#include "../suite.h"

extern const struct backend_ops backend_cpu;

enum { V = 20000 }; /* times 512 floats: more than the loader takes at once */

/* ---- A model in memory that can be made unreadable ---- */

struct file { /* pretends to be the map of a model file */
    char *base;
    size_t bytes;
    size_t wanted_to, done_to, n_wanted, n_done; /* offsets in base; sums */
    int n_want;
};

static void move(struct tensor *t, const void *from, char *to)
{
    if (t->data)
        t->data = to + ((const char *)t->data - (const char *)from);
}

static void file_make(struct file *f, struct tiny_model *t, size_t bytes)
{
    *f = (struct file){.bytes = (bytes + 4095) / 4096 * 4096};
    f->base = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(f->base, MAP_FAILED);
    memcpy(f->base, t->mem, bytes);
    move(&t->w.tok_embd, t->mem, f->base);
    move(&t->w.out_norm, t->mem, f->base);
    move(&t->w.out, t->mem, f->base);
    for (int l = 0; l < t->d.n_layer; l++)
        for (struct tensor *x = &t->w.layer[l].attn_norm; x <= &t->w.layer[l].down; x++)
            move(x, t->mem, f->base);
}

static void want(void *arg, const void *data, size_t bytes)
{
    struct file *f = arg;
    size_t at = (size_t)((const char *)data - f->base);
    ck_assert_uint_ge(at, f->wanted_to);
    f->wanted_to = at + bytes;
    f->n_wanted += bytes;
    f->n_want++;
}

/* From now on reading it is a crash. */
static void done(void *arg, const void *data, size_t bytes)
{
    struct file *f = arg;
    size_t at = (size_t)((const char *)data - f->base), page = (size_t)sysconf(_SC_PAGESIZE);
    ck_assert_uint_ge(at, f->done_to);
    ck_assert_uint_le(at + bytes, f->wanted_to);
    f->done_to = at + bytes;
    f->n_done += bytes;
    size_t from = (at + page - 1) / page * page, to = (at + bytes) / page * page;
    if (from < to)
        ck_assert_int_eq(mprotect(f->base + from, to - from, PROT_NONE), 0);
}

static size_t bytes_of(const struct tensor *t)
{
    return t->data ? dtype_row_bytes(t->type, t->n_col) * (size_t)t->n_row : 0;
}

START_TEST(the_file_is_read_once_and_in_order)
{
    struct rnd r = rnd_begin("the_file_is_read_once_and_in_order", 1);
    struct tiny_model t;
    struct file f;
    tiny_model_make(&t, &r, 2, 4, 2, 32, 512, 600, V, MODEL_QK_NORM, DT_F32, 1, 0);
    const struct layer_weights *last = &t.w.layer[1];
    size_t total = 0, end = (size_t)((const char *)last->down.data - (const char *)t.mem) + bytes_of(&last->down);
    file_make(&f, &t, end);
    total += bytes_of(&t.w.tok_embd) + bytes_of(&t.w.out_norm) + bytes_of(&t.w.out);
    for (int l = 0; l < 2; l++)
        for (const struct tensor *x = &t.w.layer[l].attn_norm; x <= &t.w.layer[l].down; x++)
            total += bytes_of(x);

    struct weight_source source = {.arg = &f, .want = want, .done = done};
    struct backend *b;
    struct bmodel *m;
    struct err e = {0};
    struct backend_options opt = {.n_thread = 3, .limits = test_limits(V)};
    t.w.source = &source;
    ck_assert_msg(!backend_cpu.open(&opt, &b, &e), "%s", e.msg);
    ck_assert_msg(!backend_cpu.load(b, &t.d, &t.w, NULL, NULL, &m, &e), "%s", e.msg);
    ck_assert_uint_eq(f.n_wanted, total);
    ck_assert_uint_eq(f.n_done, total);
    ck_assert_int_eq(f.n_want, 31 + 2); /* the embedding and the head in two pieces each */
    backend_cpu.unload(m);
    backend_cpu.close(b);
    munmap(f.base, f.bytes);
    tiny_model_free(&t);
}
END_TEST

/* ---- The layout's version ---- */

/* Packing moves bits and computes nothing, so any bytes will do, and the hash is that of every machine. */
static uint64_t packed_hash(int type)
{
    enum { N_OUT = 37, N_IN = 768 };
    struct err e = {0};
    struct weight w;
    size_t bytes = dtype_row_bytes(type, N_IN) * N_OUT;
    uint8_t *file = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        file[i] = (uint8_t)rng_mix(i);
    struct tensor t = {.data = file, .type = type, .n_row = N_OUT, .n_col = N_IN};
    ck_assert_msg(!weight_plan(&t, &w, &e), "%s", e.msg);
    w.data = calloc(1, weight_bytes(&w));
    weight_pack(&w, &t, 0, w.n_panel);
    uint64_t hash = XXH3_64bits(w.data, weight_bytes(&w));
    free(w.data);
    free(file);
    return hash;
}

/* If this fails, the packed layout has changed: raise WEIGHT_LAYOUT, so that nobody computes with weights that an
 * earlier Galley packed, and take over the hashes. */
START_TEST(a_layout_is_known_by_its_version)
{
    static const struct {
        int type;
        uint64_t hash;
    } known[N_PACK] = {
        {DT_F32, 0xb4fb55473ad1d4c1},   {DT_F16, 0xe8dbb8e155175609},
        {DT_BF16, 0x72592f0ba53dd882},  {DT_Q8_0, 0x0305201644bdfe9d},
        {DT_Q4_0, 0x7ade8d75727ac425},  {DT_Q4_K, 0xd29a22e78dde2a33},
        {DT_Q5_K, 0xb6a3db8b350d6779},  {DT_Q6_K, 0x14fa485cf6628d61},
        {DT_MXFP4, 0x1be2da55411767d9}, {DT_FP8, 0xb8274eb4dd1f80a5},
    };
    ck_assert_int_eq(WEIGHT_LAYOUT, 2);
    for (int i = 0; i < N_PACK; i++)
        ck_assert_msg(packed_hash(known[i].type) == known[i].hash, "type %d: 0x%016llx", known[i].type,
                      (unsigned long long)packed_hash(known[i].type));
}
END_TEST

/* ---- What is near whom ---- */

/* Which node cpu_take hands panel p of n to, by its own arithmetic. */
static int node_of_panel(const struct placement *place, int p, int n)
{
    for (int k = 0; k < place->n_node; k++) {
        int32_t first, end;
        placement_share(place, n, PRODUCT_PANELS, k, &first, &end);
        if (first <= p && p < end)
            return k;
    }
    ck_abort_msg("panel %d of %d is nobody's", p, n);
}

/* The first slot is a matrix, at 0. */
static const uint8_t *base_of(const struct slots *s)
{
    return s->slot[0].matrix->data;
}

static int expect_matrix(const struct slots *s, const struct placement *place, const struct weight *w, int before,
                         int all)
{
    int seen[MAX_NODE] = {0}, n = 0;
    for (int p = 0; p < w->n_panel; p++) {
        size_t at = (size_t)(w->data - base_of(s)) + (size_t)p * w->panel_bytes;
        int k = node_of_panel(place, before + p, all);
        ck_assert_int_eq(slots_node(s, place, at), k);
        ck_assert_int_eq(slots_node(s, place, at + w->panel_bytes - 1), k);
        n += !seen[k]++;
    }
    return n;
}

START_TEST(panels_lie_near_those_who_take_them)
{
    struct rnd r = rnd_begin("panels_lie_near_those_who_take_them", 1);
    struct tiny_model t;
    struct bmodel m = {0};
    struct slots s;
    struct err e = {0};
    struct placement place = {.n_worker = 7, .n_node = 3, .first = {0, 2, 3, 7}};
    tiny_model_make(&t, &r, 2, 8, 2, 64, 256, 1120, 3000, MODEL_QK_NORM, DT_Q8_0, 1, 0);
    m.d = t.d;
    m.layer = calloc(2, sizeof *m.layer);
    ck_assert_msg(!slots_plan(&s, &m, &t.w, &e), "%s", e.msg);
    char *base = malloc(s.bytes);
    slots_place(&s, base);
    ck_assert_int_eq(expect_matrix(&s, &place, &m.tok_embd, 0, m.tok_embd.n_panel), 3);
    ck_assert_int_eq(expect_matrix(&s, &place, &m.out, 0, m.out.n_panel), 3);
    for (struct layer *y = m.layer; y < m.layer + 2; y++) {
        int n_q = y->wq.n_panel, n_k = y->wk.n_panel, all = n_q + n_k + y->wv.n_panel;
        expect_matrix(&s, &place, &y->wq, 0, all);
        expect_matrix(&s, &place, &y->wk, n_q, all);
        ck_assert_int_eq(expect_matrix(&s, &place, &y->wv, n_q + n_k, all), 1); /* the last node's alone */
        expect_matrix(&s, &place, &y->wo, 0, y->wo.n_panel);
        ck_assert_int_eq(expect_matrix(&s, &place, &y->gate, 0, y->gate.n_panel), 3);
        ck_assert_int_eq(expect_matrix(&s, &place, &y->up, 0, y->up.n_panel), 3);
        expect_matrix(&s, &place, &y->down, 0, y->down.n_panel);
    }
    free(base);
    slots_free(&s);
    free(m.layer);
    tiny_model_free(&t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("load");
    tcase_add_test(tc, the_file_is_read_once_and_in_order);
    tcase_add_test(tc, a_layout_is_known_by_its_version);
    tcase_add_test(tc, panels_lie_near_those_who_take_them);
    return suite_run(tc);
}
