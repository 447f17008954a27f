/* tests/sim/sim_net.h: sockets as sim_sys.c gives them to net/conn.c and net/listener.c. */
#ifndef TESTS_SIM_SIM_NET_H
#define TESTS_SIM_SIM_NET_H

#include "net/loop.h"
#include "tests/sim/sim.h"

#define SIM_FD_FIRST (1 << 20) /* no descriptor of the kernel's is as large */

static inline bool sim_is_socket(int fd)
{
    return fd >= SIM_FD_FIRST;
}

int sim_socket(void);
int sim_bind(int fd, const struct sockaddr *sa);
void sim_listen(int fd);
const struct endpoint *sim_socket_local(int fd);
const struct endpoint *sim_socket_peer(int fd); /* NULL: not connected */
void sim_shutdown_write(int fd);

#endif
