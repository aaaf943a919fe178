/* What a loop in C takes that writes the same bytes to many sockets, and does nothing else: benchmarks/writing.py has a
   worker of uWSGI call it in turn with a group's `send`, for the same members. */

#include <stddef.h>
#include <sys/socket.h>

/* Returns how many took all of it. */
size_t write_to_all(const int *fds, size_t count, const char *data, size_t size) {
    size_t taken = 0;
    for (size_t i = 0; i < count; i++)
        taken += send(fds[i], data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
    return taken;
}
