/* The real server and engine over the fake back end: what the front end alone can do, and how it breaks.
 * GALLEY_FAKE_STEP_US makes steps slow; SIGUSR1 makes the device break at the fifth step from then. */
#include <signal.h>
#include <stdlib.h>

#include "fake.h"
#include "serve.h"

static void on_usr1(int number)
{
    fake_fail_wait(5);
}

int main(int argc, char **argv)
{
    const char *us = getenv("GALLEY_FAKE_STEP_US");
    fake_set_step_us(us ? atol(us) : 0);
    struct sigaction act = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &act, NULL);
    return serve_main(argc - 1, argv + 1, &backend_fake);
}
