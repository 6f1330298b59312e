/* Ctrl-C and the end of the terminal as something to wait for beside other things: a descriptor that becomes readable.
 * For `galley run`. Private to server/. */
#ifndef GALLEY_INTERRUPT_H
#define GALLEY_INTERRUPT_H

#include <stdbool.h>

#include "err.h"

struct interrupt { /* owner: run.c */
    int fd;
    bool end; /* a signal that ends the program came: SIGTERM, SIGHUP */
};

/* Blocks SIGINT, SIGTERM and SIGHUP for the whole process. */
int interrupt_open(struct interrupt *in, struct err *e);
/* True when a signal came; takes it, and all that wait. */
bool interrupt_take(struct interrupt *in);
/* The same, and waits for one, but not longer. */
bool interrupt_wait(struct interrupt *in, int timeout_ms);
/* In a child before exec: signals as they were. */
void interrupt_unblock(void);
void interrupt_close(struct interrupt *in);

#endif
