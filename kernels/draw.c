/* Draws from the law by the Gumbel-max rule. */
#include <math.h>
#include <stdbool.h>

#include "law.h"
#include "rng.h"
#include "truncate.h"
#include "vocab.h"

struct draw { /* the running argmax of score + noise */
    const struct law *law;
    const uint32_t *skip; /* bitmap of tokens left out, or NULL */
    uint32_t position, stream;
    int32_t best;
    float value;
};

static struct draw draw_begin(const struct law *l, int32_t position, enum noise_stream stream, const uint32_t *skip)
{
    return (struct draw){.law = l,
                         .skip = skip,
                         .position = (uint32_t)position,
                         .stream = (uint32_t)stream,
                         .best = -1,
                         .value = -INFINITY};
}

/* The noise of tokens 4 * group .. + 3. */
static void noise_of(const struct draw *d, uint32_t group, uint32_t noise[4])
{
    rng_philox(d->law->noise_key, (uint32_t[4]){group, d->position, d->stream, 0}, noise);
}

static void consider(struct draw *d, int32_t t, float score, uint32_t noise)
{
    if (d->skip && (d->skip[t >> 5] >> (t & 31) & 1))
        return;
    float value = score + rng_gumbel(noise);
    if (value > d->value || (value == d->value && t < d->best)) {
        d->best = t;
        d->value = value;
    }
}

static void offer(struct draw *d, int32_t t, float score)
{
    if (score + RNG_GUMBEL_MAX < d->value)
        return; /* no noise can lift it */
    uint32_t noise[4];
    noise_of(d, (uint32_t)t >> 2, noise);
    consider(d, t, score, noise[t & 3]);
}

/* Bits below these give less Gumbel noise than `gap`: -ln(-ln u) >= gap needs u >= 1 - e^-gap. A hundredth of slack is
 * far more than rounding. */
static uint32_t least_bits(float gap)
{
    float far = gap > 0.01f ? 1 - expf(0.01f - gap) : 0;
    return far > 0x1p-22f ? (uint32_t)((far - 0x1p-22f) * 0x1p23f) << 9 : 0;
}

/* All tokens above VOCAB_EXP_LEAST with p > 0 (p NULL: all). Most tiles and most tokens are ruled out by the best score
 * among them, before any logarithm. */
static void offer_all(struct draw *d, const float *score, const float *p, int32_t n_vocab)
{
    for (int32_t at = 0; at < n_vocab; at += VOCAB_TILE) {
        int32_t n = n_vocab - at < VOCAB_TILE ? n_vocab - at : VOCAB_TILE;
        float top = vocab_max(score + at, n);
        if (!(top + RNG_GUMBEL_MAX >= d->value))
            continue;
        uint32_t least = least_bits(d->value - top), noise[VOCAB_TILE];
        for (int32_t g = 0; 4 * g < n; g++)
            noise_of(d, (uint32_t)(at / 4 + g), noise + 4 * g);
        for (int32_t i = 0; i < n; i++)
            if (noise[i] >= least && score[at + i] > VOCAB_EXP_LEAST && (!p || p[at + i] > 0))
                consider(d, at + i, score[at + i], noise[i]);
    }
}

int32_t law_draw(const struct law_dist *d, const struct law *l, int32_t position, enum noise_stream stream,
                 const uint32_t *skip)
{
    struct draw draw = draw_begin(l, position, stream, skip);
    if (d->n > 0 && d->p[d->argmax] > 0)
        offer(&draw, d->argmax, d->score[d->argmax]); /* first: it rules most others out */
    if (d->n > d->n_vocab / VOCAB_TILE)
        offer_all(&draw, d->score, d->p, d->n_vocab);
    else
        for (int32_t i = 0; i < d->n; i++)
            offer(&draw, d->support[i], d->score[d->support[i]]);
    return draw.best;
}

int32_t law_sample(const struct step_plan *p, const struct span *s, int32_t row, const float *logits, struct law_ws *ws)
{
    const struct law *l = &p->law[s->law];
    int32_t position = p->pos[row] + 1;
    if (law_truncates(l)) {
        struct law_dist d;
        law_apply(p, s, row, logits, ws, &d);
        return law_draw(&d, l, position, NOISE_TARGET, NULL);
    }
    int32_t best = law_scores(p, s, row, logits, ws);
    if (best < 0 || l->temperature == 0)
        return best;
    struct draw draw = draw_begin(l, position, NOISE_TARGET, NULL);
    offer(&draw, best, ws->score[best]);
    offer_all(&draw, ws->score, NULL, ws->n_vocab);
    return draw.best;
}
