/* The pure parts of composed answers: what a text's answer is, who wins, what navigation remembers and writes. */
#include <stdio.h>
#include <string.h>

#include "../suite.h"
#include "compose/answer.h"
#include "compose/ballot.h"
#include "compose/navigation.h"
#include "mem.h"

/* ---- Answers ---- */

static const char *extract(struct answer_rule rule, const char *text)
{
    static char copy[256];
    struct text_buf out = {0};
    bool any = answer_extract(&rule, text, strlen(text), &out);
    ck_assert(any || out.n == 0);
    snprintf(copy, sizeof copy, "%.*s", (int)out.n, out.n ? out.p : "");
    tb_free(&out);
    return any ? copy : NULL;
}

struct expectation {
    const char *text, *answer; /* NULL: none */
};

static void expect(struct answer_rule rule, const struct expectation *c, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *got = extract(rule, c[i].text);
        ck_assert_msg(got && c[i].answer ? !strcmp(got, c[i].answer) : got == c[i].answer, "\"%s\": \"%s\", not \"%s\"",
                      c[i].text, got ? got : "none", c[i].answer ? c[i].answer : "none");
    }
}

START_TEST(the_last_number_of_the_last_line)
{
    static const struct expectation c[] = {
        {"4 + 3\nAnna has 7 apples.\nAnswer: 7", "7"},
        {"The answer is 42.", "42"},
        {"1,234,567 in all\n\n  \n", "1234567"},
        {"+1,234.50", "1234.5"},
        {"a list: 1,2,3", "3"},
        {"a list: 100, 200", "200"},
        {"12,3456", "3456"}, /* not thousands */
        {"1234,567", "567"},
        {"3.0", "3"},
        {"3.000", "3"},
        {"3.10", "3.1"},
        {"3.", "3"},
        {"x = .5", "0.5"},
        {"007", "7"},
        {"0", "0"},
        {"0.0", "0"},
        {"-0.00", "0"},
        {"it is -5", "-5"},
        {"it is \xE2\x88\x92"
         "5",
         "-5"}, /* U+2212 */
        {"-$5", "-5"},
        {"$1,000.00", "1000"},
        {"10-3", "3"},
        {"f(x)-3", "3"},
        {"(-3)", "-3"},
        {"#### 18", "18"},
        {"\\boxed{12}", "12"},
        {"50%", "50"},
        {"7 apples\nnone are left", NULL}, /* only the last line counts */
        {"", NULL},
        {"\n \n", NULL},
        {"no", NULL},
        {"-", NULL},
        {".", NULL},
        {",", NULL},
        {"5\r\n", "5"},
        {"1.5e", "1.5"},
    };
    expect((struct answer_rule){.kind = ANSWER_NUMBER}, c, sizeof c / sizeof *c);
}
END_TEST

START_TEST(the_rest_of_the_line_behind_a_marker)
{
    static const struct expectation c[] = {
        {"Answer: 7", "7"},  {"Answer: 7\nAnswer:  Paris, France \nbye", "Paris, France"},
        {"Answer:", NULL},   {"Answer:   \n7", NULL},
        {"answer: 7", NULL}, {"Answe", NULL},
        {"", NULL},          {"Answer: a Answer: b", "b"},
    };
    static const struct expectation overlapping[] = {{"aaab", "b"}, {"aa", NULL}, {"aac", "c"}};
    expect((struct answer_rule){ANSWER_AFTER, "Answer:"}, c, sizeof c / sizeof *c);
    expect((struct answer_rule){ANSWER_AFTER, "aa"}, overlapping, 3);
}
END_TEST

START_TEST(the_whole_text)
{
    static const struct expectation c[] = {{" yes\nno \n", "yes\nno"}, {"  ", NULL}, {"", NULL}};
    expect((struct answer_rule){.kind = ANSWER_TEXT}, c, 3);
}
END_TEST

START_TEST(steps_are_lines_or_else_sentences)
{
    struct slice lines[] = {slice_of("one\n\n  \ntwo\nthree"), slice_of("One. Two. Three. Four."), {NULL, 0}};
    struct slice sentences[] = {slice_of("One. Two! Three? 1.5 is four"), slice_of("a; b; c"), slice_of("..."),
                                slice_of("  \n one line \n")};
    int32_t steps[4];
    answer_steps(lines, 3, steps);
    ck_assert_int_eq(steps[0], 3);
    ck_assert_int_eq(steps[1], 1); /* lines are counted, for all, as soon as one text has several */
    ck_assert_int_eq(steps[2], 0);
    answer_steps(sentences, 4, steps);
    ck_assert_int_eq(steps[0], 4);
    ck_assert_int_eq(steps[1], 3);
    ck_assert_int_eq(steps[2], 0);
    ck_assert_int_eq(steps[3], 1);
}
END_TEST

/* ---- Votes ---- */

static struct ballot_sample sample(const char *answer, int32_t steps)
{
    return (struct ballot_sample){answer, answer ? strlen(answer) : 0, steps};
}

START_TEST(the_majority_wins)
{
    struct ballot_sample s[] = {sample("a", 9), sample("b", 1), sample(NULL, 50), sample("b", 2), sample("ab", 1)};
    struct ballot_entry e[5];
    ck_assert_int_eq(ballot_count(s, 5, 5, e), 3);
    ck_assert_int_eq(e[0].first, 1); /* the first that voted for it */
    ck_assert_int_eq(e[0].votes, 2);
    ck_assert_int_eq(e[1].first, 0); /* of equals the one with more steps */
    ck_assert_int_eq(e[2].first, 4);
    ck_assert_int_eq(ballot_count(s, 0, 5, e), 0);
    ck_assert_int_eq(ballot_count(&s[2], 1, 1, e), 0);
}
END_TEST

START_TEST(ties_go_to_more_steps_and_then_to_the_first)
{
    struct ballot_sample s[] = {sample("a", 2), sample("b", 2), sample("b", 3), sample("a", 2)};
    struct ballot_entry e[4];
    ballot_count(s, 4, 4, e);
    ck_assert_int_eq(e[0].first, 1);
    s[2].steps = 2;
    ballot_count(s, 4, 4, e);
    ck_assert_int_eq(e[0].first, 0);
}
END_TEST

START_TEST(the_most_complex_vote)
{
    struct ballot_sample s[] = {sample("short", 1), sample("short", 1), sample("short", 2), sample("long", 9),
                                sample("long", 8),  sample(NULL, 99),   sample("x", 2)};
    struct ballot_entry e[7];
    ck_assert_int_eq(ballot_count(s, 7, 3, e), 2);
    ck_assert_int_eq(e[0].first, 3);
    ck_assert_int_eq(e[0].votes, 2);
    ck_assert_int_eq(e[1].first, 2); /* of samples 2 and 6, equally complex, the earlier one votes */
    ck_assert_int_eq(ballot_count(s, 7, 7, e), 3);
    ck_assert_int_eq(e[0].first, 0); /* all of them: the majority */
}
END_TEST

/* ---- Navigation ---- */

static const char *written(struct text_buf *b)
{
    static char copy[512];
    snprintf(copy, sizeof copy, "%.*s", (int)b->n, b->n ? b->p : "");
    tb_free(b);
    return copy;
}

START_TEST(lists_are_quoted)
{
    struct text_buf b = {0};
    nav_write_line(&b, 1, slice_of("Paris"), "\"");
    nav_write_line(&b, 2, slice_of("New\n\n 3. \"York\\"), "\"");
    nav_write_opening(&b, 3, "\"");
    ck_assert_str_eq(written(&b), "1. \"Paris\"\n2. \"New 3. \\\"York\\\\\"\n3. \"");
    nav_write_line(&b, 1,
                   slice_of("a\tb\x01\x02"
                            "c"),
                   "\n");
    nav_write_opening(&b, 2, "\n");
    ck_assert_str_eq(written(&b), "1. a b c\n2.");
    nav_write_line(&b, 1, slice_of("x (y"), ")\n");
    nav_write_opening(&b, 2, ")\n");
    ck_assert_str_eq(written(&b), "1. (x \\(y)\n2. (");
    nav_write_line(&b, 1, slice_of("é"), "»");
    nav_write_opening(&b, 2, ";");
    ck_assert_str_eq(written(&b), "1. «é»\n2.");
}
END_TEST

START_TEST(items_end_where_they_should)
{
    bool ended;
    struct slice s = nav_cut(" Paris \" and", 12, "\"", &ended);
    ck_assert(ended && slice_eq(s, "Paris"));
    s = nav_cut("Paris", 5, "\"", &ended);
    ck_assert(!ended && slice_eq(s, "Paris"));
    s = nav_cut("\"", 1, "\"", &ended);
    ck_assert(ended && s.len == 0);
    s = nav_cut(NULL, 0, "\"", &ended);
    ck_assert(!ended && s.len == 0);
}
END_TEST

START_TEST(nothing_is_tried_or_found_twice)
{
    struct navigation v = {0};
    struct nav_token t[] = {{1, slice_of("a")},  {2, slice_of(" a")}, {1, slice_of("a")}, {3, slice_of(" ")},
                            {4, slice_of("\n")}, {5, slice_of("A")},  {6, slice_of("b")}};
    int32_t picked[7];
    ck_assert_int_eq(nav_pick(&v, t, 7, 3, picked), 3);
    ck_assert_int_eq(picked[0], 0);
    ck_assert_int_eq(picked[1], 3);
    ck_assert_int_eq(picked[2], 4);
    ck_assert_int_eq(nav_pick(&v, t, 7, 3, picked), 2);
    ck_assert_int_eq(picked[0], 5);
    ck_assert_int_eq(picked[1], 6);
    ck_assert_int_eq(nav_pick(&v, t, 7, 3, picked), 0);
    ck_assert(nav_find(&v, "New York", 8));
    ck_assert(!nav_find(&v, " new \n YORK ", 12));
    ck_assert(nav_find(&v, "NewYork", 7));
    ck_assert(!nav_find(&v, " ", 1));
    ck_assert(!nav_find(&v, NULL, 0));
    ck_assert_int_eq(v.n_item, 2);
    nav_free(&v);
}
END_TEST

START_TEST(running_out_of_memory_is_noticed)
{
    for (long n = 1; n < 8; n++) {
        struct navigation v = {0};
        struct nav_token t = {1, slice_of("a")};
        int32_t picked[1];
        mem_fail_nth(n);
        nav_pick(&v, &t, 1, 1, picked);
        bool found = nav_find(&v, "item", 4);
        mem_fail_nth(0);
        ck_assert(v.failed || (found && !nav_find(&v, "item", 4)));
        nav_free(&v);
        struct text_buf out = {0};
        mem_fail_nth(n);
        bool any = answer_extract(&(struct answer_rule){.kind = ANSWER_NUMBER}, "1,234", 5, &out);
        mem_fail_nth(0);
        ck_assert(any && (out.failed || (out.n == 4 && !memcmp(out.p, "1234", 4))));
        tb_free(&out);
    }
}
END_TEST

/* A model that knows N_ANSWER answers, each by N_WAY first tokens; the likelier answers' tokens all come first. What
 * the prompt lists already is unlikely. */
enum { N_ANSWER = 4, N_WAY = 5 };
static const char *const answer[N_ANSWER] = {"cat", "red panda", "owl", "fox"};

static int32_t rank_tokens(const char *prompt, struct nav_token *out)
{
    static char text[N_ANSWER * N_WAY][8];
    int32_t n = 0;
    for (int listed = 0; listed < 2; listed++)
        for (int a = 0; a < N_ANSWER; a++)
            for (int way = 0; way < N_WAY; way++) {
                char line[32];
                int32_t id = a * N_WAY + way;
                snprintf(line, sizeof line, "\"%s\"\n", answer[a]);
                snprintf(text[id], sizeof text[id], "%c%d", answer[a][0], way);
                if ((strstr(prompt, line) != NULL) == listed)
                    out[n++] = (struct nav_token){id, slice_of(text[id])};
            }
    return n;
}

/* Rounds as navigate.c runs them; returns how many were tried until `n_want` distinct answers were found, or all. */
static int32_t navigate(bool feed_back, int32_t rounds, int32_t per_round, int32_t *n_found)
{
    struct navigation v = {0};
    struct text_buf list = {0};
    struct nav_token ranked[N_ANSWER * N_WAY];
    int32_t picked[8], n_tried = 0, n_listed = 0;
    for (int32_t r = 0; r < rounds; r++) {
        struct text_buf prompt = {0};
        bool ended;
        tb_add(&prompt, list.p, list.n);
        nav_write_opening(&prompt, n_listed + 1, "\"");
        tb_add(&prompt, "", 1);
        int32_t n = nav_pick(&v, ranked, rank_tokens(prompt.p, ranked), per_round, picked);
        tb_free(&prompt);
        for (int32_t i = 0; i < n; i++) {
            char said[64];
            snprintf(said, sizeof said, "%s\" and so on", answer[ranked[picked[i]].id / N_WAY]);
            struct slice item = nav_cut(said, strlen(said), "\"", &ended);
            if (nav_find(&v, item.p, item.len) && feed_back)
                nav_write_line(&list, ++n_listed, item, "\"");
        }
        n_tried += n;
    }
    *n_found = v.n_item;
    nav_free(&v);
    tb_free(&list);
    return n_tried;
}

START_TEST(navigation_finds_what_probing_does_not)
{
    int32_t n_found;
    ck_assert_int_eq(navigate(true, N_ANSWER, 1, &n_found), N_ANSWER);
    ck_assert_int_eq(n_found, N_ANSWER); /* each once, at the first try */
    navigate(false, N_ANSWER, 1, &n_found);
    ck_assert_int_eq(n_found, 1); /* the same answer again and again */
    navigate(false, N_ANSWER, 2, &n_found);
    ck_assert_int_eq(n_found, 2);
    ck_assert_int_eq(navigate(true, 20, 8, &n_found), N_ANSWER * N_WAY); /* then there is nothing left */
    ck_assert_int_eq(n_found, N_ANSWER);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("compose");
    tcase_add_test(tc, the_last_number_of_the_last_line);
    tcase_add_test(tc, the_rest_of_the_line_behind_a_marker);
    tcase_add_test(tc, the_whole_text);
    tcase_add_test(tc, steps_are_lines_or_else_sentences);
    tcase_add_test(tc, the_majority_wins);
    tcase_add_test(tc, ties_go_to_more_steps_and_then_to_the_first);
    tcase_add_test(tc, the_most_complex_vote);
    tcase_add_test(tc, lists_are_quoted);
    tcase_add_test(tc, items_end_where_they_should);
    tcase_add_test(tc, nothing_is_tried_or_found_twice);
    tcase_add_test(tc, running_out_of_memory_is_noticed);
    tcase_add_test(tc, navigation_finds_what_probing_does_not);
    return suite_run(tc);
}
