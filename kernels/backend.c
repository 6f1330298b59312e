/* Which back ends this binary has, and which of them this machine can use. */
#include "backend.h"

#include <stdio.h>
#include <string.h>

extern const struct backend_ops backend_cpu, backend_ref;
const struct backend_ops *backend_cuda(void);

const struct backend_ops *backend_at(int32_t i)
{
    const struct backend_ops *const all[] = {
#ifdef GALLEY_CUDA
        backend_cuda(),
#endif
        &backend_cpu,
        &backend_ref,
    };
    return i >= 0 && i < (int32_t)(sizeof all / sizeof *all) ? all[i] : NULL;
}

static int usable(const struct backend_ops *ops, struct err *e)
{
    return ops->usable ? ops->usable(e) : 0;
}

/* "cpu, ref": what can be used here. */
static void list_usable(char *out, size_t size)
{
    const struct backend_ops *ops;
    size_t at = 0;
    *out = 0;
    for (int32_t i = 0; (ops = backend_at(i)); i++)
        if (!usable(ops, NULL) && at < size)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", ops->name);
}

const struct backend_ops *backend_find(const char *name, struct err *e)
{
    bool any = !strcmp(name, "auto");
    const struct backend_ops *ops;
    struct err why = {0};
    char known[128];
    for (int32_t i = 0; (ops = backend_at(i)); i++)
        if ((any || !strcmp(ops->name, name)) && !usable(ops, &why))
            return ops;
    list_usable(known, sizeof known);
    if (why.code)
        err_set(e, ERR_NOTFOUND, "the back end '%s' cannot be used: %.300s; this machine can use %s", name, why.msg,
                known);
    else
        err_set(e, ERR_NOTFOUND, "no back end '%s' in this build; this machine can use %s", name, known);
    return NULL;
}
