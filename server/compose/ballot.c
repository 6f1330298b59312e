#include "ballot.h"

#include <stdbool.h>
#include <string.h>

/* Whether sample i is among the `keep` of those with an answer that have the most steps. */
static bool votes(const struct ballot_sample *sample, int32_t n, int32_t keep, int32_t i)
{
    int32_t n_ahead = 0;
    for (int32_t k = 0; k < n; k++)
        n_ahead +=
            sample[k].answer && (sample[k].steps > sample[i].steps || (sample[k].steps == sample[i].steps && k < i));
    return sample[i].answer && n_ahead < keep;
}

static bool same_answer(const struct ballot_sample *a, const struct ballot_sample *b)
{
    return a->n == b->n && !memcmp(a->answer, b->answer, a->n);
}

static bool is_ahead(const struct ballot_entry *a, const struct ballot_entry *b)
{
    if (a->votes != b->votes)
        return a->votes > b->votes;
    return a->steps != b->steps ? a->steps > b->steps : a->first < b->first;
}

static void sort_entries(struct ballot_entry *e, int32_t n)
{
    for (int32_t i = 1; i < n; i++) {
        struct ballot_entry one = e[i];
        int32_t at = i;
        for (; at > 0 && is_ahead(&one, &e[at - 1]); at--)
            e[at] = e[at - 1];
        e[at] = one;
    }
}

int32_t ballot_count(const struct ballot_sample *sample, int32_t n, int32_t keep, struct ballot_entry *out)
{
    int32_t n_entry = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!votes(sample, n, keep, i))
            continue;
        int32_t at = 0;
        while (at < n_entry && !same_answer(&sample[out[at].first], &sample[i]))
            at++;
        if (at == n_entry)
            out[n_entry++] = (struct ballot_entry){.first = i};
        out[at].votes++;
        out[at].steps += sample[i].steps;
    }
    sort_entries(out, n_entry);
    return n_entry;
}
