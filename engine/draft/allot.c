#include "draft/allot.h"

static void take_musts(struct bid *bid, int32_t n, int32_t *budget, int32_t *n_row, double *n_token)
{
    for (int32_t i = 0; i < n; i++) {
        bid[i].n = 0;
        while (bid[i].n < bid[i].must && (*budget) > 0) {
            *n_token += bid[i].draft->chance[bid[i].n++];
            (*budget)--;
            (*n_row)++;
        }
    }
}

/* Rows are added in order of worth; a step's cost has steps of its own (tiles), so the best number is looked for over
 * all, not at the first row that does not pay. */
void draft_allot(struct bid *bid, int32_t n, int32_t budget, int32_t n_row, double n_token,
                 const struct step_cost *cost)
{
    double prompts = cost_step(cost, n_row) - cost_step(cost, (int32_t)n_token);
    take_musts(bid, n, &budget, &n_row, &n_token);
    double next[ALLOT_MAX_BID], best = n_token / (cost_step(cost, n_row) - prompts);
    int32_t order[ALLOT_MAX_ROW], n_order = 0, n_best = 0;
    for (int32_t i = 0; i < n; i++)
        next[i] = bid[i].n < bid[i].max ? bid[i].draft->chance[bid[i].n] : 0;
    while (n_order < budget && n_order < ALLOT_MAX_ROW) {
        int32_t top = 0;
        for (int32_t i = 1; i < n; i++)
            if (next[i] > next[top])
                top = i;
        if (n == 0 || next[top] < ALLOT_LEAST)
            break;
        n_token += next[top];
        order[n_order++] = top;
        bid[top].n++;
        next[top] = bid[top].n < bid[top].max ? bid[top].draft->chance[bid[top].n] : 0;
        double rate = n_token / (cost_step(cost, n_row + n_order) - prompts);
        if (rate > best) {
            best = rate;
            n_best = n_order;
        }
    }
    while (n_order > n_best)
        bid[order[--n_order]].n--;
}
