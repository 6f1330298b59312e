/* Runs one test case as a program: every unit test file here has its own main. */
#ifndef GALLEY_TEST_SUITE_H
#define GALLEY_TEST_SUITE_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* How many seeds, draws or cases a test takes: `some` where tests/meson.build asks for no more. */
static inline int suite_all_or(int all, int some)
{
    const char *seeds = getenv("GALLEY_TEST_SEEDS");
    return seeds && !strcmp(seeds, "some") ? some : all;
}

static inline int suite_run(TCase *tc)
{
    Suite *s = suite_create("unit");
    suite_add_tcase(s, tc);
    tcase_set_timeout(tc, 300); /* meson ends a test that hangs; a loaded machine must not */
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int n_failed = srunner_ntests_failed(r);
    srunner_free(r);
    return n_failed != 0;
}

#endif
