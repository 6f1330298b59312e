/* Trigram drafts: the table against a plain one, the search and its scores, and what is drafted of it. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../ngram/ngram_rig.h"
#include "../suite.h"
#include "draft/trigram_drafter.h"
#include "plan.h"
#include "rng.h"

static struct history_text text_from(const int32_t *tok, int32_t n, int32_t cut)
{
    return (struct history_text){.part = {NULL, tok, tok + cut}, .n_part = {0, cut, n - cut}, .n = n};
}

static struct trigrams new_table(int32_t n_context, const struct ngram *store)
{
    struct trigrams t;
    trigrams_init(&t, calloc(1, trigrams_bytes(n_context)), n_context, store);
    return t;
}

/* ---- A plain table: one list of trigrams, looked through from end to end ---- */

enum { MAX_PLAIN = 4096 };

struct plain {
    int32_t n, a[MAX_PLAIN], b[MAX_PLAIN], c[MAX_PLAIN];
    float w[MAX_PLAIN];
};

static void plain_add(struct plain *p, int32_t a, int32_t b, int32_t c)
{
    int32_t at = -1, lightest = -1, n_same = 0;
    for (int32_t i = 0; i < p->n; i++) {
        if (p->a[i] != a || p->b[i] != b)
            continue;
        n_same++;
        at = p->c[i] == c ? i : at;
        lightest = lightest < 0 || p->w[i] < p->w[lightest] ? i : lightest;
    }
    if (at < 0) {
        at = n_same < TRIGRAM_SUCCESSORS ? p->n++ : lightest;
        ck_assert_int_lt(at, MAX_PLAIN);
        p->a[at] = a, p->b[at] = b, p->c[at] = c, p->w[at] = 0;
    }
    p->w[at] += TRIGRAM_RATE;
    if (p->w[at] >= TRIGRAM_CAP)
        for (int32_t i = 0; i < p->n; i++)
            if (p->a[i] == a && p->b[i] == b)
                p->w[i] /= 2;
}

static void plain_learn(struct plain *p, const int32_t *tok, int32_t at)
{
    for (int32_t i = 2; i <= at; i++)
        if (i - 2 > at - TRIGRAM_WINDOW)
            plain_add(p, tok[i - 2], tok[i - 1], tok[i]);
}

static float plain_weight(const struct plain *p, int32_t a, int32_t b, int32_t c)
{
    for (int32_t i = 0; i < p->n; i++)
        if (p->a[i] == a && p->b[i] == b && p->c[i] == c)
            return p->w[i];
    return 0;
}

static int32_t plain_count(const struct plain *p, int32_t a, int32_t b)
{
    int32_t n = 0;
    for (int32_t i = 0; i < p->n; i++)
        n += p->a[i] == a && p->b[i] == b;
    return n;
}

START_TEST(the_table_is_a_plain_one_where_it_has_room)
{
    struct rnd r = rnd_begin("the_table_is_a_plain_one_where_it_has_room", 41);
    static struct plain p;
    enum { MAX = 600, CONTEXTS = 1 << 13 };
    int32_t tok[MAX];
    for (int round = 0; round < 40; round++) {
        int32_t n = rnd_int(&r, 1, MAX), alphabet = rnd_int(&r, 1, round % 2 ? 3 : 20), from = 0;
        struct trigrams t = new_table(CONTEXTS, NULL);
        p.n = 0;
        for (int32_t i = 0; i < n; i++) {
            tok[i] = rnd_int(&r, 0, alphabet - 1);
            plain_learn(&p, tok, i);
        }
        struct history_text text = text_from(tok, n, rnd_int(&r, 0, n));
        for (int32_t to = 0; from < n; to += rnd_int(&r, 1, 40)) /* in pieces */
            trigrams_take(&t, &text, &from, to < n ? to : n);
        for (int32_t a = 0; a < alphabet; a++)
            for (int32_t b = 0; b < alphabet; b++) {
                const struct trigram_context *c = trigrams_find(&t, a, b);
                ck_assert_int_eq(c ? c->n : 0, plain_count(&p, a, b));
                for (int32_t i = 0; c && i < c->n; i++) {
                    ck_assert(c->weight[i] == plain_weight(&p, a, b, c->tok[i]));
                    ck_assert(c->weight[i] > 0 && c->weight[i] < TRIGRAM_CAP);
                }
            }
        free(t.context);
    }
}
END_TEST

/* A small table forgets contexts, whole ones, and never says what was not learnt. */
START_TEST(a_small_table_forgets_and_does_not_invent)
{
    struct rnd r = rnd_begin("a_small_table_forgets_and_does_not_invent", 42);
    enum { N = 1500, ALPHABET = 40 };
    static char followed[ALPHABET][ALPHABET][ALPHABET];
    int32_t tok[N], from = 0, n_known = 0;
    memset(followed, 0, sizeof followed);
    for (int32_t i = 0; i < N; i++) {
        tok[i] = rnd_int(&r, 0, ALPHABET - 1);
        if (i >= 2)
            followed[tok[i - 2]][tok[i - 1]][tok[i]] = 1;
    }
    struct trigrams t = new_table(trigrams_size(1, false), NULL);
    struct history_text text = text_from(tok, N, 0);
    while (from < N)
        trigrams_take(&t, &text, &from, N);
    for (int32_t a = 0; a < ALPHABET; a++)
        for (int32_t b = 0; b < ALPHABET; b++) {
            const struct trigram_context *c = trigrams_find(&t, a, b);
            n_known += c != NULL;
            for (int32_t i = 0; c && i < c->n; i++)
                ck_assert(followed[a][b][c->tok[i]]);
        }
    ck_assert_int_gt(n_known, t.n_context / 2);
    ck_assert_int_le(n_known, t.n_context);
    ck_assert_ptr_nonnull(trigrams_find(&t, tok[N - 3], tok[N - 2])); /* the newest is in */
    trigrams_clear(&t);
    ck_assert_ptr_null(trigrams_find(&t, tok[N - 3], tok[N - 2]));
    free(t.context);
}
END_TEST

/* autoregressive.md, section 8, test: a trigram that stands r times in the window gains .04 r with each token. */
START_TEST(the_papers_update_rule)
{
    int32_t tok[TRIGRAM_WINDOW];
    struct trigrams t = new_table(64, NULL);
    for (int32_t i = 0; i < TRIGRAM_WINDOW; i++)
        tok[i] = i % 4; /* 0 1 2 stands four times */
    struct history_text text = text_from(tok, TRIGRAM_WINDOW, 3);
    for (int steps = 1; steps <= 5; steps++) {
        trigrams_learn(&t, &text, TRIGRAM_WINDOW - 1);
        ck_assert_float_eq_tol(trigrams_find(&t, 0, 1)->weight[0], .04F * 4 * (float)steps, 1e-5F);
    }
    free(t.context);
}
END_TEST

/* ---- From a store ---- */

START_TEST(a_store_gives_what_it_has_most)
{
    struct rnd r = rnd_begin("a_store_gives_what_it_has_most", 43);
    struct text text = text_random(&r, 30, 4000, 30);
    struct ngram_header h;
    struct ngram_write_options o = {.n_vocab = 30, .max_n = 3, .min_count = 1};
    struct err e = {0};
    struct ngram *g;
    char path[256];
    size_t size;
    rig_path(path, "trigram");
    ck_assert_msg(!rig_write(path, &text, &o, 1 << 20, &h, &e), "%s", e.msg);
    uint8_t *data = rig_read(path, &size);
    ck_assert_msg(!ngram_open_mem(&g, data, size, path, NULL, &e), "%s", e.msg);
    struct trigrams t = new_table(1 << 13, g);
    for (int32_t a = 0; a < 30; a++)
        for (int32_t b = 0; b < 30; b++) {
            int32_t gram[3] = {a, b, 0}, *ctx = gram, n_ctx = 2, tok[TRIGRAM_SUCCESSORS], n_after = 0;
            uint32_t count[TRIGRAM_SUCCESSORS], total, sum = 0;
            for (; sum == 0 && n_ctx > 0; ctx += sum == 0, n_ctx -= sum == 0)
                for (int32_t c = 0; c < 30; c++) {
                    gram[2] = c;
                    sum += text_count(&text, ctx, n_ctx + 1);
                }
            const struct trigram_context *c = trigrams_find(&t, a, b);
            ck_assert_int_eq(c != NULL, sum > 0);
            if (!c)
                continue;
            int32_t n = ngram_top(g, ctx, n_ctx, UINT32_MAX, tok, count, TRIGRAM_SUCCESSORS, &total);
            ck_assert_int_eq(n, c->n);
            for (int32_t k = 0; k < 30; k++) { /* none that is left out is more frequent than one that is in */
                bool in = false;
                gram[2] = k;
                uint32_t times = text_count(&text, ctx, n_ctx + 1);
                for (int32_t i = 0; i < n; i++)
                    in |= tok[i] == k && count[i] == times;
                n_after += times > 0;
                ck_assert(in || times <= count[n - 1]);
            }
            ck_assert_int_eq(n, n_after < TRIGRAM_SUCCESSORS ? n_after : TRIGRAM_SUCCESSORS);
            for (int32_t i = 0; i < n; i++) {
                ck_assert_int_eq(c->tok[i], tok[i]);
                ck_assert_float_eq_tol(c->weight[i], (float)count[i] / (float)total, 1e-6F);
                ck_assert(i == 0 || count[i] <= count[i - 1]);
            }
        }
    free(t.context);
    ngram_close(g);
    free(data);
    unlink(path);
    text_free(&text);
}
END_TEST

/* ---- The search ---- */

/* autoregressive.md, section 8, test. */
START_TEST(the_papers_score)
{
    ck_assert(isinf(trigram_score(0, 0, .5, 9)));
    ck_assert_double_eq_tol(trigram_score(2.2, 2, .5, 9), 17.505, 5e-4);
}
END_TEST

static struct trigrams random_table(struct rnd *r, int32_t alphabet, int32_t n)
{
    int32_t *tok = malloc(sizeof *tok * (size_t)n), from = 0;
    struct trigrams t = new_table(1024, NULL);
    for (int32_t i = 0; i < n; i++)
        tok[i] = rnd_int(r, 0, rnd_int(r, 0, alphabet - 1));
    struct history_text text = text_from(tok, n, 0);
    while (from < n)
        trigrams_take(&t, &text, &from, n);
    free(tok);
    return t;
}

static void check_node(struct trigram_search *s, int32_t i)
{
    const struct trigram_node *v = &s->node[i], *up = v->parent < 0 ? NULL : &s->node[v->parent];
    int32_t below = 0;
    for (int32_t k = v->first; k < v->first + v->n_child; k++) {
        below += s->node[k].n_visit;
        ck_assert_int_eq(s->node[k].parent, i);
        ck_assert(k == v->first || s->node[k].weight >= s->node[k - 1].weight);
    }
    ck_assert_int_le(below, v->n_visit);
    if (!up)
        return;
    ck_assert_int_lt(v->parent, i);
    ck_assert_int_eq(v->prev, up->tok);
    ck_assert_int_eq(v->depth, up->depth + 1);
    ck_assert_int_le(v->depth, s->max_depth);
    bool found = false;
    const struct trigram_context *c = trigrams_find(s->table, up->prev, up->tok);
    for (int32_t k = 0; k < c->n; k++)
        found |= c->tok[k] == v->tok && c->weight[k] == v->weight;
    ck_assert(found);
    /* What it was rewarded with: 1, the path's weights, and no more than the heaviest rest of it. */
    double path = 1;
    for (int32_t k = i; k > 0; k = s->node[k].parent)
        path += (double)s->node[k].weight;
    ck_assert_double_ge(v->reward, path * v->n_visit - 1e-6);
    ck_assert_double_le(v->reward, (path + (s->max_depth - v->depth) * (double)TRIGRAM_CAP) * v->n_visit + 1e-6);
}

START_TEST(the_search_goes_where_the_table_leads)
{
    struct rnd r = rnd_begin("the_search_goes_where_the_table_leads", 44);
    static struct trigram_search s, again;
    for (int round = 0; round < 60; round++) {
        int32_t alphabet = rnd_int(&r, 1, 20), depth = rnd_int(&r, 1, 6);
        struct trigrams t = random_table(&r, alphabet, rnd_int(&r, 3, 400));
        int32_t a = rnd_int(&r, 0, alphabet - 1), b = rnd_int(&r, 0, alphabet - 1);
        bool known = trigrams_find(&t, a, b) != NULL;
        trigram_search(&s, &t, NULL, a, b, depth, 7);
        trigram_search(&again, &t, NULL, a, b, depth, 7);
        ck_assert_int_eq(s.n > 1, known);
        ck_assert_int_eq(s.node[0].n_visit, known ? TRIGRAM_ITERATIONS : 1);
        ck_assert_int_eq(s.n, again.n);
        ck_assert_mem_eq(s.node, again.node, sizeof *s.node * (size_t)s.n);
        for (int32_t i = 0; i < s.n; i++)
            check_node(&s, i);
        free(t.context);
    }
}
END_TEST

/* With the target's noise the heaviest child of the root is the token that the target would draw, were the table its law:
 * at every draw, not only as often as that token is the table's first. */
START_TEST(the_noise_picks_what_the_target_draws)
{
    struct rnd r = rnd_begin("the_noise_picks_what_the_target_draws", 47);
    static struct trigram_search s;
    enum { N = 300 };
    int32_t n_first = 0;
    struct trigrams t = random_table(&r, 6, 400);
    const struct trigram_context *c = trigrams_find(&t, 1, 2);
    ck_assert_int_ge(c->n, 3);
    for (int32_t position = 0; position < N; position++) {
        struct trigram_noise noise = {.key = 99, .position = position};
        int32_t drawn = 0, first = 0;
        double best = -INFINITY, sum = 0, plain = 0;
        for (int32_t i = 0; i < c->n; i++) {
            double value = log((double)c->weight[i]) + (double)rng_token_gumbel(99, position, NOISE_TARGET, c->tok[i]);
            drawn = value > best ? i : drawn;
            best = fmax(best, value);
            first = c->weight[i] > c->weight[first] ? i : first;
            plain += (double)c->weight[i];
        }
        n_first += drawn == first;
        trigram_search(&s, &t, &noise, 1, 2, TRIGRAM_DEPTH, 7);
        const struct trigram_node *root = &s.node[0];
        ck_assert_int_eq(s.node[root->first + root->n_child - 1].tok, c->tok[drawn]);
        for (int32_t i = root->first; i < root->first + root->n_child; i++)
            sum += (double)s.node[i].weight;
        ck_assert_double_eq_tol(sum, plain, 1e-4);
    }
    ck_assert_int_lt(n_first, N * 9 / 10); /* the table alone would have missed the others */
    free(t.context);
}
END_TEST

/* ---- Drafts ---- */

START_TEST(a_draft_is_a_tree_in_order_of_chance)
{
    struct rnd r = rnd_begin("a_draft_is_a_tree_in_order_of_chance", 45);
    static struct trigram_search s;
    for (int round = 0; round < 200; round++) {
        int32_t alphabet = rnd_int(&r, 1, 20), tok[200], n = rnd_int(&r, 1, 200), most = rnd_int(&r, 0, DRAFT_MAX),
                depth = rnd_int(&r, 0, 6), reach[DRAFT_MAX];
        struct trigrams t = new_table(1024, NULL);
        struct trigram_drafter g = {.on = true};
        struct tree_rates all = {0};
        struct draft d = {0};
        for (int32_t i = 0; i < n; i++)
            tok[i] = rnd_int(&r, 0, alphabet - 1);
        struct history_text text = text_from(tok, n, n / 2);
        trigram_follow(&g, &all, &text, &d);
        trigrams_take(&t, &text, &g.n_taken, text.n);
        trigram_propose(&g, &t, &s, &all, &text, NULL, most, depth, &d);
        ck_assert_int_le(d.n, most);
        for (int32_t i = 0; i < d.n; i++) {
            ck_assert_int_lt(d.parent[i], i);
            reach[i] = d.parent[i] < 0 ? 1 : reach[d.parent[i]] + 1;
            ck_assert_int_le(reach[i], depth);
            ck_assert(d.chance[i] > 0 && (i == 0 || d.chance[i] <= d.chance[i - 1]));
            ck_assert_int_eq(draft_child(&d, d.parent[i], d.tok[i]), i); /* no sibling says the same */
        }
        free(t.context);
    }
}
END_TEST

/* In a text that goes round in circles the first guess soon is right, and its chance says so; in noise it says so too.
 */
START_TEST(chances_are_learnt)
{
    struct rnd r = rnd_begin("chances_are_learnt", 46);
    static struct trigram_search s;
    enum { N = 400 };
    for (int noise = 0; noise < 2; noise++) {
        struct trigrams t = new_table(1024, NULL);
        struct trigram_drafter g = {.on = true};
        struct tree_rates all = {0};
        struct draft d = {0};
        int32_t tok[N], n_right = 0;
        for (int32_t i = 0; i < N; i++)
            tok[i] = noise ? rnd_int(&r, 0, 3) : i * i % 17;
        for (int32_t n = 2; n < N; n++) {
            struct history_text text = text_from(tok, n, 1);
            trigram_follow(&g, &all, &text, &d);
            trigrams_take(&t, &text, &g.n_taken, text.n);
            trigram_propose(&g, &t, &s, &all, &text, NULL, DRAFT_MAX, TRIGRAM_DEPTH + 1, &d);
            n_right += n >= N / 2 && d.n && d.tok[0] == tok[n];
        }
        float rate = trigram_mean_rate(&g, &all);
        if (noise)
            ck_assert_float_le(rate, .4F);
        else
            ck_assert_float_ge(rate, .9F);
        ck_assert_int_ge(n_right, noise ? N / 20 : N / 2 - 2);
        free(t.context);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("trigram");
    tcase_add_test(tc, the_table_is_a_plain_one_where_it_has_room);
    tcase_add_test(tc, a_small_table_forgets_and_does_not_invent);
    tcase_add_test(tc, the_papers_update_rule);
    tcase_add_test(tc, a_store_gives_what_it_has_most);
    tcase_add_test(tc, the_papers_score);
    tcase_add_test(tc, the_search_goes_where_the_table_leads);
    tcase_add_test(tc, the_noise_picks_what_the_target_draws);
    tcase_add_test(tc, a_draft_is_a_tree_in_order_of_chance);
    tcase_add_test(tc, chances_are_learnt);
    return suite_run(tc);
}
