/* Where the server listens: a TCP port, which every loop opens for itself (SO_REUSEPORT), or a Unix socket, which they
 * share. Private to server/. */
#ifndef GALLEY_LISTENER_H
#define GALLEY_LISTENER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "err.h"
#include "options.h"

struct listener { /* owner: main; the loops read it */
    const struct options *opt;
    bool tls;
    struct sockaddr_storage addr; /* TCP; its port is the bound one once the first loop listens */
    int unix_fd;                  /* -1: TCP */
    dev_t dev;                    /* of the socket's file */
    ino_t ino;
    int port;
};

/* A port or a socket that is in use is an error; a socket's file that a server left behind when it was killed is
 * replaced. The Unix socket's owner and group may use it (mode 0660). */
int listener_open(struct listener *l, const struct options *opt, struct err *e);
/* The first loop was given a port by the system (--port 0): the others use the same. */
void listener_set_port(struct listener *l, int port);
/* "https://host:port", "unix:/path" */
void listener_url(const struct listener *l, char *buf, size_t size);
/* Removes the socket's file, if it is still ours. */
void listener_close(struct listener *l);

#endif
