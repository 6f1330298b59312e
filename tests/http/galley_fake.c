/* The real server and engine over the fake back end: what the front end alone can do, and how it breaks.
 * GALLEY_FAKE_STEP_US makes steps slow, GALLEY_FAKE_FAIL_STEP=n breaks the device at the n-th step. */
#include <stdlib.h>

#include "fake.h"
#include "serve.h"

int main(int argc, char **argv)
{
    const char *us = getenv("GALLEY_FAKE_STEP_US"), *fail = getenv("GALLEY_FAKE_FAIL_STEP");
    fake_set_step_us(us ? atol(us) : 0);
    fake_fail_wait(fail ? atol(fail) : 0);
    return serve_main(argc - 1, argv + 1, &backend_fake);
}
