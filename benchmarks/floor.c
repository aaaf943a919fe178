/* The floor of the benchmarks: the least that a WebSocket echo server in user space can do. One thread, epoll; frames
   are unmasked and written back as they come, one write for each read. No check of any kind, no limit, no close
   handshake to speak of: it shows what the kernel and the load client leave to be won, and is no server to use.

   It answers every handshake with the accept value for the one key that load.c sends. Paths: /echo; /broadcast, where
   every message goes to all connections; anything without an upgrade gets a short plain answer.

   usage: floor PORT (0 for any; the port is printed) */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE (256 * 1024)

struct connection {
    int fd;
    int upgraded;
    struct connection *previous, *next; /* the others of /broadcast */
    int broadcast;
    unsigned char head[14];
    unsigned head_size;
    uint64_t remaining; /* bytes of payload that have not come */
    int in_payload, is_close, finished;
    unsigned char mask[4];
    unsigned char *waiting; /* what the socket did not take */
    size_t waiting_size, waiting_capacity;
};

static int poller;
static struct connection *everyone;

static void end(struct connection *c) {
    if (c->broadcast) {
        if (c->previous) c->previous->next = c->next;
        else everyone = c->next;
        if (c->next) c->next->previous = c->previous;
    }
    close(c->fd);
    free(c->waiting);
    free(c);
}

static void watch(struct connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event);
}

static void put(struct connection *c, const unsigned char *data, size_t size) {
    ssize_t written = c->waiting_size ? 0 : send(c->fd, data, size, MSG_NOSIGNAL);
    if (written < 0) written = 0;
    size -= written;
    if (size == 0) return;
    if (c->waiting_size + size > c->waiting_capacity) {
        c->waiting_capacity = 2 * (c->waiting_size + size);
        c->waiting = realloc(c->waiting, c->waiting_capacity);
    }
    memcpy(c->waiting + c->waiting_size, data + written, size);
    if (c->waiting_size == 0) watch(c, EPOLLIN | EPOLLOUT);
    c->waiting_size += size;
}

static void put_waiting(struct connection *c) {
    ssize_t written = send(c->fd, c->waiting, c->waiting_size, MSG_NOSIGNAL);
    if (written <= 0) return;
    c->waiting_size -= written;
    memmove(c->waiting, c->waiting + written, c->waiting_size);
    if (c->waiting_size == 0) watch(c, EPOLLIN);
}

static unsigned unmask(unsigned char *to, const unsigned char *from, size_t size, unsigned char *mask) {
    unsigned char turned[4];
    uint64_t mask8, word;
    size_t i = 0;
    memcpy(&mask8, mask, 4);
    memcpy((char *)&mask8 + 4, mask, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= mask8;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) to[i] = from[i] ^ mask[i & 3];
    for (int j = 0; j < 4; j++) turned[j] = mask[(size + j) & 3];
    memcpy(mask, turned, 4);
    return size;
}

/* Turn client frames, cut anywhere, into server frames; return the size of those. */
static size_t frames(struct connection *c, const unsigned char *data, size_t size, unsigned char *out) {
    unsigned char *start = out;
    while (size) {
        if (!c->in_payload) {
            unsigned length, extended;
            c->head[c->head_size++] = *data++;
            size--;
            if (c->head_size < 6) continue;
            length = c->head[1] & 0x7f;
            extended = length < 126 ? 0 : length == 126 ? 2 : 8;
            if (c->head_size < 6 + extended) continue;
            c->remaining = length;
            if (extended) {
                c->remaining = 0;
                for (unsigned i = 0; i < extended; i++) c->remaining = c->remaining << 8 | c->head[2 + i];
            }
            memcpy(c->mask, c->head + 2 + extended, 4);
            *out++ = c->head[0];
            *out++ = length;
            memcpy(out, c->head + 2, extended);
            out += extended;
            c->is_close = (c->head[0] & 0x0f) == 8;
            c->head_size = 0;
            c->in_payload = 1;
        }
        size_t part = size < c->remaining ? size : c->remaining;
        out += unmask(out, data, part, c->mask);
        data += part;
        size -= part;
        c->remaining -= part;
        if (c->remaining == 0) {
            c->in_payload = 0;
            if (c->is_close) c->finished = 1;
        }
    }
    return out - start;
}

static void answer(struct connection *c, unsigned char *request, size_t size) {
    static const char upgrade[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    static const char plain[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";
    request[size] = 0;
    if (strstr((char *)request, "websocket") == NULL) {
        put(c, (const unsigned char *)plain, sizeof plain - 1);
        c->finished = 1;
        return;
    }
    put(c, (const unsigned char *)upgrade, sizeof upgrade - 1);
    c->upgraded = 1;
    if (strncmp((char *)request, "GET /broadcast", 14) == 0) {
        c->broadcast = 1;
        c->next = everyone;
        if (everyone) everyone->previous = c;
        everyone = c;
    }
}

static void readable(struct connection *c) {
    static unsigned char in[READ_SIZE + 1], out[READ_SIZE + 16];
    ssize_t size = recv(c->fd, in, READ_SIZE, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        end(c);
        return;
    }
    if (!c->upgraded) {
        answer(c, in, size);
    } else {
        size = frames(c, in, size, out);
        if (c->broadcast && !c->finished)
            for (struct connection *other = everyone; other; other = other->next) put(other, out, size);
        else
            put(c, out, size);
    }
    if (c->finished) end(c);
}

static void accept_all(int listening) {
    int fd, yes = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *c = calloc(1, sizeof *c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        c->fd = fd;
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(count > 1 ? atoi(arguments[1]) : 0)};
    socklen_t address_size = sizeof address;
    struct epoll_event events[256], event = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit limit;
    int yes = 1, listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listening, (struct sockaddr *)&address, sizeof address) < 0 || listen(listening, 1024) < 0) {
        perror("floor");
        return 1;
    }
    getsockname(listening, (struct sockaddr *)&address, &address_size);
    poller = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(poller, EPOLL_CTL_ADD, listening, &event);
    printf("listening on %d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int ready = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) {
                accept_all(listening);
                continue;
            }
            if (events[i].events & EPOLLOUT && c->waiting_size) put_waiting(c);
            if (events[i].events & ~EPOLLOUT) readable(c);
        }
    }
}
