#include "lanes.h"

#include <string.h>

#include "dtype.h"

enum { Q8_LEN = 32 }; /* elements of a block of Q8_0, which share a scale of two bytes */

/* n elements of a constant size: the compiler makes each copy one move. */
static inline void copy(const size_t size, struct lane from, struct lane to, int32_t n)
{
    const char *src = from.group + size * (size_t)(from.step == 1 ? from.i * n : from.i);
    char *dst = to.group + size * (size_t)(to.step == 1 ? to.i * n : to.i);
    for (int32_t d = 0; d < n; d++, src += size * (size_t)from.step, dst += size * (size_t)to.step)
        memcpy(dst, src, size);
}

void lane_copy(int32_t type, int32_t dim, struct lane from, struct lane to)
{
    if (type == DT_F32)
        copy(4, from, to, dim);
    else if (type != DT_Q8_0)
        copy(2, from, to, dim);
    else
        for (int32_t d = 0; d < dim; d += Q8_LEN) {
            copy(2, from, to, 1);
            from.group += 2 * from.n;
            to.group += 2 * to.n;
            copy(1, from, to, Q8_LEN);
            from.group += Q8_LEN * from.n;
            to.group += Q8_LEN * to.n;
        }
}
