#include "versions.h"

#include <stddef.h>

#include "wake.h" /* clock_ns */

static void free_chain(struct versions *all, struct version *v)
{
    for (struct version *older; v; v = older) {
        older = v->older;
        all->free(v);
    }
}

void versions_put(struct versions *all, struct version *v, int64_t grace_ns)
{
    int64_t now_ns = clock_ns();
    struct version *replaced = atomic_load(&all->now);
    v->older = replaced;
    if (replaced)
        replaced->replaced_ns = now_ns;
    atomic_store(&all->now, v);
    /* A version's own time is later than that of all older ones: the first that is due ends the chain. */
    for (struct version *keep = v; keep->older; keep = keep->older)
        if (now_ns - keep->older->replaced_ns > grace_ns) {
            free_chain(all, keep->older);
            keep->older = NULL;
            return;
        }
}

void versions_free(struct versions *all)
{
    free_chain(all, atomic_load(&all->now));
    atomic_store(&all->now, NULL);
}
