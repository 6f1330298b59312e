/* The real server and engine over the cuda back end on the fake runtime: what a person sees when a device breaks.
 * GALLEY_FAKE_DEVICES: how many there are; GALLEY_FAKE_COMM_MS: how long a rank may be silent. SIGUSR1 loses the last
 * device some steps from then, SIGUSR2 makes it silent. */
#include <signal.h>
#include <stdlib.h>

#include "fake_comm.h"
#include "fake_runtime.h"
#include "serve.h"

enum { SOON = 4 };

static int number(const char *name, int otherwise)
{
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

static void on_signal(int which)
{
    if (which == SIGUSR1)
        fake_faults.lose_after = SOON;
    else
        fake_comm_faults.silent_at = SOON;
}

int main(int argc, char **argv)
{
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    fake_runtime_reset();
    fake_comm_reset();
    fake_faults.n_device = number("GALLEY_FAKE_DEVICES", 1);
    fake_faults.device = fake_comm_faults.rank = fake_faults.n_device - 1;
    sigaction(SIGUSR1, &act, NULL);
    sigaction(SIGUSR2, &act, NULL);
    return serve_main(argc - 1, argv + 1,
                      cuda_backend(&fake_runtime, fake_comm_within(number("GALLEY_FAKE_COMM_MS", 240000)), NULL));
}
