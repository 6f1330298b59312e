#include "cost.h"

#include <math.h>

static const double LEVEL_RATE = 0.2, SHAPE_RATE = 0.05, SHAPE_MOST = 0.5, SURPRISE = 4, FORGET_RATE = 0.005;
/* Steps unseen after which a point's shape learns twice as fast; what was only timed at the start counts as TIMED. */
enum { STALE = 8, TIMED = 32, FORGOTTEN = 1024 };

void cost_init(struct step_cost *c)
{
    *c = (struct step_cost){.level = 1};
}

void cost_set(struct step_cost *c, int32_t n_row, double seconds)
{
    if (c->n_point == COST_MAX_POINT)
        return;
    double least = c->n_point ? c->s[c->n_point - 1] : 1e-9;
    c->row[c->n_point] = n_row;
    c->unseen[c->n_point] = TIMED;
    c->s[c->n_point] = c->first[c->n_point] = seconds > least ? seconds : least;
    c->n_point++;
}

/* The last point at or below n_row, and how far n_row is on the way to the next (above 1 beyond the last). */
static int32_t locate(const struct step_cost *c, int32_t n_row, double *way)
{
    int32_t i = 0;
    while (i + 2 < c->n_point && c->row[i + 1] <= n_row)
        i++;
    *way = (double)(n_row - c->row[i]) / (c->row[i + 1] - c->row[i]);
    return i;
}

/* More rows are never cheaper: a point that seems so was measured on a better moment. */
static double at_point(const struct step_cost *c, int32_t i)
{
    double s = c->s[i];
    while (i-- > 0)
        s = c->s[i] > s ? c->s[i] : s;
    return s;
}

static double on_curve(const struct step_cost *c, int32_t n_row)
{
    if (c->n_point == 0)
        return n_row; /* nothing is known: every row as dear as the last */
    if (c->n_point == 1)
        return c->s[0] * n_row / c->row[0];
    double way;
    int32_t i = locate(c, n_row, &way);
    double below = at_point(c, i);
    return below + way * (at_point(c, i + 1) - below);
}

double cost_step(const struct step_cost *c, int32_t n_row)
{
    return n_row > 0 ? c->level * on_curve(c, n_row) : 0;
}

int32_t cost_rows_within(const struct step_cost *c, int32_t n_row, double times, int32_t most)
{
    double limit = times * cost_step(c, n_row);
    int32_t lo = 0, hi = most;
    while (lo < hi) {
        int32_t middle = lo + (hi - lo + 1) / 2;
        if (cost_step(c, n_row + middle) <= limit)
            lo = middle;
        else
            hi = middle - 1;
    }
    return lo;
}

int32_t cost_rows_efficient(const struct step_cost *c, double slack, int32_t most)
{
    double each = slack * cost_step(c, most) / most;
    int32_t n = 1;
    while (n < most && cost_step(c, n) > each * n)
        n *= 2;
    return n < most ? n : most;
}

/* What was not seen for very long is forgotten: towards how it stood to what is seen when both were timed. Without this
 * it would drift away, since the level is nobody's but what is seen. */
static void forget_unseen(struct step_cost *c, int32_t seen)
{
    for (int32_t i = 0; i < c->n_point; i++)
        if (c->unseen[i] < FORGOTTEN)
            c->unseen[i]++;
        else
            c->s[i] += FORGET_RATE * (c->s[seen] * c->first[i] / c->first[seen] - c->s[i]);
    c->unseen[seen] = 0;
}

void cost_observe(struct step_cost *c, int32_t n_row, double seconds)
{
    if (n_row < 1 || c->n_point < 2 || !(seconds > 0))
        return;
    /* Beyond, the machine was busy elsewhere, which is no news about rows. */
    double ratio = fmin(fmax(seconds / cost_step(c, n_row), 1 / SURPRISE), SURPRISE);
    double way;
    int32_t i = locate(c, n_row, &way), near = way > 0.5 ? i + 1 : i;
    double stale = 1 + (double)c->unseen[near] / STALE;
    c->level *= pow(ratio, LEVEL_RATE / stale);
    c->s[near] *= pow(ratio, fmin(SHAPE_RATE * stale, SHAPE_MOST));
    forget_unseen(c, near);
}
