/* Rotation frequencies from what either kind of file says of them. Sources: RoPE, arXiv:2104.09864; YaRN,
 * arXiv:2309.00071; LongRoPE, arXiv:2402.13753; Llama 3.1's as transformers' modeling_rope_utils has it. */
#include "rope.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    enum rope_scaling scaling;
} names[] = {
    {"none", ROPE_PLAIN}, {"default", ROPE_PLAIN}, {"linear", ROPE_LINEAR},     {"llama3", ROPE_LLAMA3},
    {"yarn", ROPE_YARN},  {"su", ROPE_LONGROPE},   {"longrope", ROPE_LONGROPE},
};

int rope_scaling_by_name(struct slice name, enum rope_scaling *out, struct err *e)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (slice_eq(name, names[i].name)) {
            *out = names[i].scaling;
            return 0;
        }
    return err_set(e, ERR_FORMAT, "RoPE scaling '%.*s' is not supported (default, linear, llama3, yarn, longrope)",
                   (int)(name.len < 32 ? name.len : 32), name.p);
}

/* Slow pairs rotate slower by `factor`, fast ones as ever, those between by a mixture. */
static double llama3_scaled(const struct rope_spec *s, double freq)
{
    double turns = s->n_ctx_original * freq / (2 * M_PI); /* over the original context */
    if (turns > s->high)
        return freq;
    if (turns < s->low)
        return freq / s->factor;
    double smooth = (turns - s->low) / (s->high - s->low);
    return (1 - smooth) * freq / s->factor + smooth * freq;
}

/* The pair that turns so often over the original context. */
static double yarn_pair(const struct rope_spec *s, double turns, int32_t dim)
{
    return dim * log(s->n_ctx_original / (turns * 2 * M_PI)) / (2 * log(s->base));
}

static double yarn_scaled(const struct rope_spec *s, double freq, int32_t i, int32_t dim)
{
    double low = fmax(floor(yarn_pair(s, s->beta_fast, dim)), 0),
           high = fmin(ceil(yarn_pair(s, s->beta_slow, dim)), dim - 1);
    double slow = (i - low) / fmax(high - low, 0.001);
    slow = fmin(fmax(slow, 0), 1);
    return freq / s->factor * slow + freq * (1 - slow);
}

static double mscale_of(const struct rope_spec *s)
{
    if (s->mscale > 0)
        return s->mscale;
    if (s->scaling == ROPE_YARN && s->factor > 1)
        return 0.1 * log(s->factor) + 1;
    if (s->scaling == ROPE_LONGROPE && s->factor > 1)
        return sqrt(1 + log(s->factor) / log(s->n_ctx_original));
    return 1;
}

static bool is_sane(double x)
{
    return isfinite(x) && x > 0;
}

int rope_frequencies(const struct rope_spec *s, int32_t dim, float *inv_freq, float *mscale, struct err *e)
{
    if (!is_sane(s->base) || !is_sane(s->factor))
        return err_set(e, ERR_FORMAT, "the RoPE base (rope_theta) and factor must be positive, they are %g and %g",
                       s->base, s->factor);
    if (s->scaling > ROPE_LINEAR && !(s->n_ctx_original >= 2))
        return err_set(e, ERR_FORMAT, "RoPE scaling needs the original context length, it is %g", s->n_ctx_original);
    for (int32_t i = 0; i < dim / 2; i++) {
        double freq = pow(s->base, -2.0 * i / dim);
        if (s->scaling == ROPE_LINEAR)
            freq /= s->factor;
        else if (s->scaling == ROPE_LLAMA3)
            freq = llama3_scaled(s, freq);
        else if (s->scaling == ROPE_YARN)
            freq = yarn_scaled(s, freq, i, dim);
        if (s->divide)
            freq /= s->divide[i];
        inv_freq[i] = (float)freq;
        if (!is_sane(inv_freq[i]))
            return err_set(e, ERR_FORMAT, "RoPE scaling makes a frequency of %g", freq);
    }
    *mscale = (float)mscale_of(s);
    return is_sane(*mscale) ? 0 : err_set(e, ERR_FORMAT, "RoPE scaling makes a magnitude of %g", mscale_of(s));
}
