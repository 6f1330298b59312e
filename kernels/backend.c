/* Which back ends this binary has. */
#include "backend.h"

#include <string.h>

extern const struct backend_ops backend_cpu, backend_ref;

static const struct backend_ops *const all[] = {&backend_cpu, &backend_ref};

const struct backend_ops *backend_find(const char *name, struct err *e)
{
    if (!strcmp(name, "auto"))
        return all[0]; /* the fastest comes first */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i]->name, name))
            return all[i];
    char known[128] = "";
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, all[i]->name, sizeof known - strlen(known) - 1);
    }
    err_set(e, ERR_NOTFOUND, "no back end '%s' in this build: it has auto, %s", name, known);
    return NULL;
}
