#include "draft/rates.h"

/* Observations after which old ones fade, and how many observations the backing weighs. */
static const float FADE_AT = 64, BACKING = 6;

float accept_rate(const struct accept_rates *own, const struct accept_rates *all, int32_t c, float prior)
{
    float shared = (all->hit[c] + BACKING * prior) / (all->seen[c] + BACKING);
    return (own->hit[c] + BACKING * shared) / (own->seen[c] + BACKING);
}

void accept_learn(struct accept_rates *r, int32_t c, bool hit)
{
    r->hit[c] += hit;
    r->seen[c] += 1;
    if (r->seen[c] > FADE_AT) {
        r->hit[c] /= 2;
        r->seen[c] /= 2;
    }
}

static void add_up(const struct accept_rates *r, float *hit, float *seen)
{
    for (int32_t c = 0; c < N_GUESS_CLASS; c++) {
        *hit += r->hit[c];
        *seen += r->seen[c];
    }
}

float accept_mean(const struct accept_rates *own, const struct accept_rates *all, float prior)
{
    float hit = 0, seen = 0, all_hit = 0, all_seen = 0;
    add_up(own, &hit, &seen);
    add_up(all, &all_hit, &all_seen);
    float shared = (all_hit + BACKING * prior) / (all_seen + BACKING);
    return (hit + BACKING * shared) / (seen + BACKING);
}
