/* Counting votes: which of several samples' answers wins. Pure. Private to server/compose.
 *
 * Majority (Wang et al., self-consistency) counts every sample that has an answer; complexity (Fu et al., others.md
 * 11.1) only the `keep` of them with the most steps, earlier ones first among equals. Of answers with equally many
 * votes the one whose voters have more steps in sum comes first, then the one that was said first. */
#ifndef GALLEY_COMPOSE_BALLOT_H
#define GALLEY_COMPOSE_BALLOT_H

#include <stddef.h>
#include <stdint.h>

struct ballot_sample {
    const char *answer; /* n bytes; NULL: it has none */
    size_t n;
    int32_t steps;
};

struct ballot_entry { /* one distinct answer */
    int32_t first;    /* the first sample that voted for it */
    int32_t votes;
    int64_t steps; /* of its voters in sum */
};

/* Fills out[0..) for the distinct answers, the winner first, and returns how many there are; room for n is needed. */
int32_t ballot_count(const struct ballot_sample *sample, int32_t n, int32_t keep, struct ballot_entry *out);

#endif
