#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "random_plan.h"
#include "../suite.h"

enum { V = 50 };
static const struct plan_env env = {
    .n_vocab = V, .n_layer = 2, .n_embd = 8, .n_block = 16, .block_len = 4, .n_bank = 2};

/* A plan with a chain, a tree on it, a mixture, a mask, a law, held rows and every listed readout. */
static void build(struct step_plan *p)
{
    plan_reset(p);
    struct law law = neutral_law();
    struct law_tok toks[] = {{.tok = 3, .n_prompt = 1, .bias = 0.5f}, {.tok = 7, .n_output = 2}};
    int l = plan_law(p, &law, toks, 2, (int32_t[]){4}, 1);
    uint32_t mask[2] = {0xffffffff, 0x3ffff};
    int m = plan_mask(p, mask);
    int mix = plan_mix(p, (struct mix_part[]){{1, 0.25f}, {2, 0.75f}}, 2, 0);

    plan_span(p,
              &(struct span){.seq = 1, .ctx_len = 3, .n_chain = 2, .n_counted = 1, .group = -1, .law = l, .layer1 = 2});
    plan_row(p, 5, 3, 2 - 3, 0);
    plan_row(p, MIX_ROW(mix), 4, 0, 0);
    p->row_mask[1] = m;
    plan_row(p, 8, 5, 1, 1);      /* bit 0 */
    plan_row(p, 9, 5, 1, 2);      /* bit 1: a sibling */
    plan_row(p, 10, 6, 2, 1 | 4); /* bit 2 below bit 0 */
    plan_blocks(p, (int32_t[]){0, 1}, 2);

    plan_span(p, &(struct span){.seq = 2, .ctx_len = 4, .group = -1, .law = l, .layer1 = 1});
    plan_held(p, 11, PARENT_CTX);
    plan_row(p, 12, 5, HELD_PARENT(0), 1 | 2);
    plan_blocks(p, (int32_t[]){2, 3}, 2);
    plan_kvop(p, 0, 8, 4);

    plan_readout(p, &(struct readout){.kind = READ_SAMPLE, .row = 4, .bank = -1}, NULL);
    plan_readout(p, &(struct readout){.kind = READ_PROBE, .row = 1, .n = 2, .bank = -1}, (int32_t[]){8, 9});
    plan_readout(p, &(struct readout){.kind = READ_TOPK, .raw = 1, .row = 5, .n = 4, .bank = -1}, NULL);
}

static struct plan_limits limits(void)
{
    struct plan_limits l = test_limits(V);
    l.n_readout = 3;
    return l;
}

START_TEST(a_good_plan_passes)
{
    struct step_plan p;
    struct err e = {0};
    struct plan_limits cap = limits();
    ck_assert(!plan_create(&p, &cap, &e));
    build(&p);
    ck_assert_msg(!plan_check(&p, &env, &e), "%s", e.msg);
    ck_assert_int_eq(p.readout[1].f0, 2);
    ck_assert_int_eq(p.readout[2].i0, 4);
    plan_free(&p);
}
END_TEST

static void break_vis(struct step_plan *p)
{
    p->vis[4] = 4;
}
static void break_depth(struct step_plan *p)
{
    p->pos[4] = 5;
}
static void break_chain_pos(struct step_plan *p)
{
    p->pos[1] = 7;
}
static void break_chain_parent(struct step_plan *p)
{
    p->parent[1] = -1;
}
static void break_forward_parent(struct step_plan *p)
{
    p->parent[2] = 4;
}
static void break_token(struct step_plan *p)
{
    p->tok[0] = V;
}
static void break_mix(struct step_plan *p)
{
    p->tok[0] = MIX_ROW(9);
}
static void break_mix_source(struct step_plan *p)
{
    p->part[1].src = V;
}
static void break_mask(struct step_plan *p)
{
    p->row_mask[0] = 5;
}
static void break_block(struct step_plan *p)
{
    p->bt[1] = 16;
}
static void break_cover(struct step_plan *p)
{
    p->span[0].ctx_len = 4;
}
static void break_shared_write(struct step_plan *p)
{
    p->bt[p->span[1].bt_off + 1] = 1;
}
static void break_held_chain(struct step_plan *p)
{
    p->span[1].n_chain = 1;
}
static void break_held_parent(struct step_plan *p)
{
    p->held[0].parent = HELD_PARENT(0);
}
static void break_layers(struct step_plan *p)
{
    p->span[0].layer1 = 3;
}
static void break_layer0(struct step_plan *p)
{
    p->span[0].layer0 = 1;
}
static void break_law(struct step_plan *p)
{
    p->span[0].law = -1;
}
static void break_law_order(struct step_plan *p)
{
    p->law_tok[1].tok = 3;
}
static void break_temperature(struct step_plan *p)
{
    p->law[0].temperature = -1;
}
static void break_kvop(struct step_plan *p)
{
    p->kvop[0].dst = 62;
}
static void break_list(struct step_plan *p)
{
    p->list[0] = -1;
}
static void break_topk(struct step_plan *p)
{
    p->readout[2].n = PLAN_MAX_TOPK + 1;
}
static void break_row0(struct step_plan *p)
{
    p->span[1].row0 = 4;
}
static void break_kind(struct step_plan *p)
{
    p->readout[0].kind = READ_CONTRAST;
}

START_TEST(every_broken_plan_is_refused)
{
    static void (*const breaker[])(struct step_plan *) = {
        break_vis,    break_depth,        break_chain_pos,  break_chain_parent, break_forward_parent,
        break_token,  break_mix,          break_mix_source, break_mask,         break_block,
        break_cover,  break_shared_write, break_held_chain, break_held_parent,  break_layers,
        break_layer0, break_law,          break_law_order,  break_temperature,  break_kvop,
        break_list,   break_topk,         break_row0,       break_kind,
    };
    struct step_plan p;
    struct plan_limits cap = limits();
    ck_assert(!plan_create(&p, &cap, NULL));
    for (size_t i = 0; i < sizeof breaker / sizeof *breaker; i++) {
        struct err e = {0};
        build(&p);
        breaker[i](&p);
        ck_assert_msg(plan_check(&p, &env, &e) == -ERR_INVALID, "breaker %zu passed", i);
        ck_assert(e.msg[0]);
    }
    plan_free(&p);
}
END_TEST

START_TEST(a_full_plan_refuses_and_stays_whole)
{
    struct step_plan p;
    struct plan_limits cap = limits();
    ck_assert(!plan_create(&p, &cap, NULL));
    build(&p);
    struct plan_limits before = p.n;
    ck_assert_int_eq(plan_readout(&p, &(struct readout){.kind = READ_SAMPLE, .bank = -1}, NULL), -ERR_NOMEM);
    ck_assert_mem_eq(&before, &p.n, sizeof before);
    ck_assert(!plan_check(&p, &env, NULL));
    plan_free(&p);
}
END_TEST

static char *dump_text(const struct step_plan *p)
{
    char *text;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    plan_dump(p, f);
    fclose(f);
    return text;
}

START_TEST(dump_and_parse_round_trip)
{
    struct step_plan p, q;
    struct err e = {0};
    struct plan_limits cap = limits();
    ck_assert(!plan_create(&p, &cap, NULL) && !plan_create(&q, &cap, NULL));
    build(&p);
    char *text = dump_text(&p);
    FILE *in = fmemopen(text, strlen(text), "r");
    ck_assert_msg(!plan_parse(&q, in, &e), "%s", e.msg);
    fclose(in);
    char *again = dump_text(&q);
    ck_assert_str_eq(text, again);
    ck_assert_msg(!plan_check(&q, &env, &e), "%s", e.msg);
    free(text);
    free(again);
    plan_free(&p);
    plan_free(&q);
}
END_TEST

START_TEST(equal_masks_are_stored_once)
{
    struct step_plan p;
    struct plan_limits cap = limits();
    ck_assert(!plan_create(&p, &cap, NULL));
    uint32_t a[2] = {1, 2}, b[2] = {1, 3};
    ck_assert_int_eq(plan_mask(&p, a), 0);
    ck_assert_int_eq(plan_mask(&p, b), 1);
    ck_assert_int_eq(plan_mask(&p, a), 0);
    plan_free(&p);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("plan");
    tcase_add_test(tc, a_good_plan_passes);
    tcase_add_test(tc, every_broken_plan_is_refused);
    tcase_add_test(tc, a_full_plan_refuses_and_stays_whole);
    tcase_add_test(tc, dump_and_parse_round_trip);
    tcase_add_test(tc, equal_masks_are_stored_once);
    return suite_run(tc);
}
