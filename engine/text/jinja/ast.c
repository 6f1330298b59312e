#include "ast.h"

struct visitor {
    void (*visit)(void *arg, struct jnode *child);
    void *arg;
};

static void each(const struct visitor *v, struct jnode *const *node, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (node[i])
            v->visit(v->arg, node[i]);
}

static void each_arg(const struct visitor *v, const struct jcall_args *a)
{
    each(v, a->pos, a->n_pos);
    each(v, a->kw, a->n_kw);
    each(v, &a->star, 1);
    each(v, &a->star_star, 1);
}

void jnode_children(const struct jnode *n, void (*visit)(void *arg, struct jnode *child), void *arg)
{
    const struct visitor v = {visit, arg};
    switch ((enum jnode_kind)n->kind) {
    case J_NODE_TUPLE:
    case J_NODE_LIST:
    case J_NODE_DICT:
    case J_NODE_CONCAT:
    case J_NODE_COMPARE:
    case J_NODE_OUTPUT:
        each(&v, n->seq.item, n->seq.n);
        break;
    case J_NODE_BINARY:
    case J_NODE_UNARY:
    case J_NODE_AND:
    case J_NODE_OR:
        each(&v, &n->bin.left, 1);
        each(&v, &n->bin.right, 1);
        break;
    case J_NODE_COND:
        each(&v, &n->cond.test, 1);
        each(&v, &n->cond.yes, 1);
        each(&v, &n->cond.no, 1);
        break;
    case J_NODE_GETATTR:
        each(&v, &n->getattr.obj, 1);
        break;
    case J_NODE_GETITEM:
        each(&v, &n->getitem.obj, 1);
        each(&v, &n->getitem.sub, 1);
        break;
    case J_NODE_SLICE:
        each(&v, &n->slice.start, 1);
        each(&v, &n->slice.stop, 1);
        each(&v, &n->slice.step, 1);
        break;
    case J_NODE_CALL:
    case J_NODE_FILTER:
    case J_NODE_TEST:
        each(&v, &n->apply.on, 1);
        each_arg(&v, &n->apply.args);
        break;
    default:
        break;
    }
}
