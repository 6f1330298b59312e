#include "chance.h"

#include <math.h>

#include "rng.h"

/* In the open interval (0, 1): 52 bits and the half are exact in f64, so neither end occurs. */
static double next_unit(struct chance_philox *c)
{
    uint32_t bits[4];
    rng_philox(c->key, (uint32_t[4]){c->n_asked++, c->position, c->stream, 0}, bits);
    uint64_t word = (uint64_t)bits[0] << 32 | bits[1];
    return ((double)(word >> 12) + 0.5) * 0x1p-52;
}

static int32_t philox_choose(void *self, const double *weight, int32_t n)
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += weight[i] > 0 ? weight[i] : 0;
    if (!(sum > 0))
        return -1;
    double left = next_unit(self) * sum;
    int32_t last = -1;
    for (int32_t i = 0; i < n; i++) {
        if (!(weight[i] > 0))
            continue;
        last = i;
        left -= weight[i];
        if (left < 0)
            break;
    }
    return last; /* where rounding leaves a crumb, the last that has any weight */
}

static double philox_gumbel(void *self)
{
    return -log(-log(next_unit(self)));
}

const struct chance *chance_philox(struct chance_philox *c, uint64_t key, int32_t position, enum noise_stream stream)
{
    *c = (struct chance_philox){.chance = {.choose = philox_choose, .gumbel = philox_gumbel, .self = c},
                                .key = key,
                                .position = (uint32_t)position,
                                .stream = (uint32_t)stream};
    return &c->chance;
}
