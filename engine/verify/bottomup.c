/* The verifiers that decide from the leaves up (section 17): they weigh a whole path's p against its q, so a token that
 * the draft liked too little can carry one that it liked too much. */
#include "err.h"
#include "verify_impl.h"

/* ---- Block verification: a chain ---- */

struct block {
    int32_t n_node, node[VERIFY_MAX_NODE]; /* root first */
    double w[VERIFY_MAX_NODE + 1];         /* w[i]: the weight of the path to node[i]; w[n_node]: of a last draw that
                                              has no node */
    int32_t tail;                          /* that draw, -1: none */
};

static void block_weigh(struct block *b, const struct verify_tree *t)
{
    struct residual r;
    b->n_node = 1;
    b->node[0] = 0;
    b->w[0] = 1;
    b->tail = -1;
    for (int32_t u = 0; u >= 0 && t->node[u].n_drawn > 0;) {
        const struct verify_node *n = &t->node[u];
        BUG_ON(n->n_drawn > 1);
        residual_begin(&r, n, b->w[b->n_node - 1]);
        b->w[b->n_node] = residual_accept(&r, n->drawn[0]);
        u = verify_child(t, u, n->list[n->drawn[0]]);
        if (u >= 0)
            b->node[b->n_node++] = u;
        else
            b->tail = n->drawn[0];
    }
}

/* Length i is accepted with probability h_i = S_i / (S_i + 1 - w_i), the longest first, and followed by a token from
 * (w_i p_i - q_i)+; at full length with w, followed by one from p. */
void verify_block(const struct verify_tree *t, const struct chance *c, struct verify_result *out)
{
    struct block b;
    struct residual r;
    block_weigh(&b, t);
    int32_t last = b.node[b.n_node - 1];
    if (b.tail >= 0 && chance_coin(c, b.w[b.n_node])) {
        verify_end(t, last, t->node[last].list[b.tail], out);
        return;
    }
    for (int32_t i = b.n_node - 1;; i--) {
        const struct verify_node *n = &t->node[b.node[i]];
        residual_begin(&r, n, b.w[i]);
        if (n->n_drawn > 0)
            residual_reject(&r, n->drawn[0], false);
        if (i == 0 || chance_coin(c, r.a)) {
            verify_end(t, b.node[i], residual_token(&r, c), out);
            return;
        }
    }
}

/* ---- Traversal: a tree ---- */

struct traversal { /* what one call carries along */
    const struct verify_tree *t;
    const struct chance *c;
    struct verify_result *out;
};

/* Tries the paths through u, which is reached with weight a; true: one was accepted and the step has ended. A draft
 * without a node is a leaf. Nothing below a weight of 0 can be accepted, so a draft that comes again after its
 * rejection (draws with replacement) is not walked again: its residual p is 0. Depth is at most PLAN_MAX_TREE: about
 * 140 KiB of stack. */
static bool visit(const struct traversal *v, int32_t u, double a)
{
    const struct verify_node *n = &v->t->node[u];
    struct residual r;
    residual_begin(&r, n, a);
    for (int32_t j = 0; j < n->n_drawn; j++) {
        int32_t x = n->drawn[j], child = verify_child(v->t, u, n->list[x]);
        double w = residual_accept(&r, x);
        if (child >= 0 && w > 0) {
            if (visit(v, child, w))
                return true;
        } else if (chance_coin(v->c, w)) {
            verify_end(v->t, u, n->list[x], v->out);
            return true;
        }
        residual_reject(&r, x, v->t->law == DRAFT_WOR);
    }
    if (u > 0 && !chance_coin(v->c, r.a))
        return false;
    verify_end(v->t, u, residual_token(&r, v->c), v->out);
    return true;
}

void verify_traversal(const struct verify_tree *t, const struct chance *c, struct verify_result *out)
{
    struct traversal v = {.t = t, .c = c, .out = out};
    visit(&v, 0, 1);
}
