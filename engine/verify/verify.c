/* Which verifier for which drafts, and the way to it. */
#include "verify.h"

#include <string.h>

#include "err.h"
#include "verify_impl.h"

#define BIT(kind) (1u << (kind))
/* Section 17's table. */
static const uint32_t valid[N_DRAFT_LAW] = {
    [DRAFT_FIXED] = BIT(VERIFY_NSS),
    [DRAFT_IID] = BIT(VERIFY_NSS) | BIT(VERIFY_NAIVE) | BIT(VERIFY_RRS) | BIT(VERIFY_KSEQ) | BIT(VERIFY_TRAVERSAL),
    [DRAFT_WOR] = BIT(VERIFY_NSS) | BIT(VERIFY_NAIVE) | BIT(VERIFY_RRS) | BIT(VERIFY_TRAVERSAL),
    [DRAFT_GREEDY] = BIT(VERIFY_NSS) | BIT(VERIFY_GREEDY),
    [DRAFT_CHAIN] = BIT(N_VERIFY_KIND) - 1,
};

bool verify_valid(enum verify_kind kind, enum draft_law law)
{
    return law < N_DRAFT_LAW && kind < N_VERIFY_KIND && (valid[law] & BIT(kind));
}

/* ---- Names ---- */

static const char *const kind_name[N_VERIFY_KIND] = {"nss", "naive", "rrs", "kseq", "greedy", "block", "traversal"};
static const char *const law_name[N_DRAFT_LAW] = {"fixed", "iid", "wor", "greedy", "chain"};

static int find(const char *const *names, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

const char *verify_name(enum verify_kind kind)
{
    return kind_name[kind];
}

int verify_kind_of(const char *name)
{
    if (!strcmp(name, "exact"))
        return VERIFY_NSS;
    if (!strcmp(name, "rrsw"))
        return VERIFY_RRS;
    return find(kind_name, N_VERIFY_KIND, name);
}

const char *draft_law_name(enum draft_law law)
{
    return law_name[law];
}

int draft_law_of(const char *name)
{
    if (!strcmp(name, "topk"))
        return DRAFT_FIXED;
    return find(law_name, N_DRAFT_LAW, name);
}

/* ---- The default ---- */

enum verify_kind verify_for(enum draft_law law)
{
    switch (law) {
    case DRAFT_CHAIN:
        return VERIFY_BLOCK;
    case DRAFT_GREEDY:
        return VERIFY_GREEDY;
    case DRAFT_IID:
    case DRAFT_WOR:
        return VERIFY_TRAVERSAL;
    default:
        return VERIFY_NSS;
    }
}

struct verify_choice verify_auto(float temperature, int32_t top_k, bool has_q, int32_t max_branch)
{
    enum draft_law law = DRAFT_WOR;
    if (temperature == 0 || top_k == 1 || !has_q)
        law = DRAFT_FIXED; /* p is one-hot, or there is nothing to weigh it against */
    else if (max_branch <= 1)
        law = DRAFT_CHAIN;
    else if (temperature <= 0.6f)
        law = DRAFT_GREEDY; /* wins while p is sharp, loses at temperature 1 (section 5) */
    return (struct verify_choice){.law = law, .kind = verify_for(law)};
}

/* ---- Trees ---- */

static bool is_drawn(const struct verify_node *u, int32_t edge, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        if (u->drawn[j] == edge)
            return true;
    return false;
}

static bool draws_fit(const struct verify_node *u, enum draft_law law)
{
    if (u->n_list < 0 || u->n_list > PLAN_MAX_LIST || u->n_drawn < 0 || (law == DRAFT_CHAIN && u->n_drawn > 1) ||
        (law != DRAFT_FIXED && u->n_drawn > 0 && !u->q))
        return false;
    for (int32_t j = 0; j < u->n_drawn; j++)
        if (u->drawn[j] < 0 || u->drawn[j] >= u->n_list || (law != DRAFT_IID && is_drawn(u, u->drawn[j], j)))
            return false;
    return true;
}

bool verify_well_formed(const struct verify_tree *t)
{
    if (t->n_node < 1 || t->n_node > VERIFY_MAX_NODE || t->node[0].parent != -1)
        return false;
    for (int32_t i = 0; i < t->n_node; i++)
        if (!draws_fit(&t->node[i], t->law))
            return false;
    for (int32_t i = 1; i < t->n_node; i++) {
        const struct verify_node *n = &t->node[i];
        if (n->parent < 0 || n->parent >= i || !is_drawn(&t->node[n->parent], n->edge, t->node[n->parent].n_drawn))
            return false;
        for (int32_t j = 1; j < i; j++)
            if (t->node[j].parent == n->parent && t->node[j].edge == n->edge)
                return false;
    }
    return true;
}

int32_t verify_child(const struct verify_tree *t, int32_t u, int32_t token)
{
    for (int32_t i = u + 1; i < t->n_node; i++)
        if (t->node[i].parent == u && t->node[u].list[t->node[i].edge] == token)
            return i;
    return -1;
}

void verify_end(const struct verify_tree *t, int32_t u, int32_t token, struct verify_result *out)
{
    out->token = token;
    out->n_path = 0;
    for (int32_t i = u; i > 0; i = t->node[i].parent)
        out->n_path++;
    for (int32_t i = u, at = out->n_path; i > 0; i = t->node[i].parent)
        out->path[--at] = i;
}

void verify_tree(enum verify_kind kind, const struct verify_tree *t, const struct chance *c, struct verify_result *out)
{
    BUG_ON(!verify_valid(kind, t->law));
#ifndef NDEBUG
    BUG_ON(!verify_well_formed(t));
#endif
    if (kind == VERIFY_BLOCK)
        verify_block(t, c, out);
    else if (kind == VERIFY_TRAVERSAL)
        verify_traversal(t, c, out);
    else
        verify_topdown(kind, t, c, out);
}
