/* A server for one client: `galley serve` as a child, on a Unix socket in a folder that only this user may enter. It
 * ends with its parent. For `galley run`. Private to server/. */
#ifndef GALLEY_OWN_SERVER_H
#define GALLEY_OWN_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#include "err.h"

struct own_server {               /* owner: run.c */
    pid_t pid;                    /* 0: there is none, or it has ended */
    char folder[96], socket[108]; /* sun_path's length */
};

/* `flag` [n]: what it is told beside where to listen. */
int own_server_start(struct own_server *s, char **flag, int n, struct err *e);
/* It has ended by itself, and has said why on stderr. */
bool own_server_ended(struct own_server *s);
void own_server_stop(struct own_server *s);

#endif
