/* A load client for WebSocket servers: one thread, epoll, no library. It prints one line of JSON.

   Modes:
     echo      every connection keeps so many messages in flight and sends the next when an echo comes back
     rate      messages are sent at a fixed rate over all connections; latency counts from the time at which a message
               should have been sent, so that a server that stalls is charged for what had to wait (no coordinated
               omission)
     fan-out   the first connection sends; every connection gets the message; then the next is sent; latency counts
               until the last has got it
     idle      every connection has one message echoed, then waits (answering pings) until standard input ends
     open      opens a connection, has the handshake answered, drops it, opens the next
     http      the same with a plain GET request
     storm     every connection has one message echoed; then each that is lost is opened again at once, until all have
               had an echo on a new connection

   The opening handshake always has the same key, and its answer is checked. The length of every echo is checked, the
   content of every echo during the warm-up. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="            /* of RFC 6455, section 1.3 */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="     /* its answer */
#define READ_SIZE (256 * 1024)
#define BATCH_SIZE (64 * 1024) /* so many bytes of frames are laid out one after the other, to be written at once */
#define SECOND 1000000000ull   /* nanoseconds */
#define OPEN_TIMEOUT (60 * SECOND)
#define DRAIN_TIMEOUT (5 * SECOND)
#define REFUSED_PAUSE (SECOND / 100) /* mode storm: until a connection that nobody listened for is tried again */
#define SETTLING (SECOND / 5)  /* a server may register a connection for the fan-out after it has answered it */

enum mode { ECHO, RATE, FAN_OUT, IDLE, OPEN, HTTP, STORM };
enum state { CLOSED, CONNECTING, HANDSHAKING, READY };

struct connection {
    int fd;
    enum state state;
    int wants_write;       /* registered for EPOLLOUT */
    size_t position;       /* in the stream of frames: what is written next */
    size_t owed;           /* bytes of the stream that are to be written */
    uint32_t frame;        /* the frame of the stream that is scheduled next */
    uint32_t outstanding;  /* messages that have not come back */
    uint64_t greeted;      /* messages that came before any echo */
    unsigned char head[10];
    unsigned head_size;
    int in_payload;
    unsigned char first;   /* first byte of the frame that is arriving */
    uint64_t remaining;    /* bytes of its payload that have not come */
    uint64_t length;       /* bytes of the message so far */
    unsigned char control[125], pong[131];
    unsigned control_size, pong_size;
    char *answer;          /* to the handshake, or to the GET request */
    size_t answer_size;
    uint64_t *due;         /* mode rate: when the outstanding messages should have been sent; a ring */
    uint32_t due_first, due_capacity;
    uint64_t since;        /* modes open and http: when this connection was begun; storm: when it is to be, again */
    int lost, back;        /* mode storm: the server has closed it; has had an echo since */
};

static enum mode mode = ECHO;
static int port, binary, in_flight = 1, opening = 64;
static uint32_t connection_count = 1;
static uint64_t message_size = 32;
static double warm_up = 0.2, duration = 1, rate = 1000;
static uint64_t message_count; /* measured, instead of a duration; 0: not limited */
static const char *path = "/echo", *prefix = "", *stream_file, *offer, *expected_extension;
static uint64_t greetings; /* messages that the server sends on each connection before any echo */

static struct connection *connections;
static unsigned char *stream;   /* masked frames, one after the other; sent round and round */
static size_t *frame_ends;
static uint32_t frame_count;
static unsigned char *template; /* what an echo holds; NULL where it is not known */
static int poller;
static uint32_t open_count, begun, closed_count;
static uint64_t received_count, ping_count;
static int sending, verifying, closing, storming;
static struct connection **refused; /* a ring of those that are to be tried again, in the order of their times */
static uint32_t refused_first, refused_count, back_count;
static uint64_t storm_began;
static float *latencies; /* microseconds */
static size_t latency_count, latency_capacity;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void *allocate(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (memory == NULL && size) fail("no memory");
    return memory;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* The frames to send */

static void make_stream(void) {
    static const unsigned char mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    unsigned char head[14];
    unsigned head_size = 2;
    head[0] = 0x80 | (binary ? 2 : 1);
    if (message_size < 126) {
        head[1] = 0x80 | message_size;
    } else if (message_size < 65536) {
        head[1] = 0x80 | 126;
        head[2] = message_size >> 8;
        head[3] = message_size;
        head_size = 4;
    } else {
        head[1] = 0x80 | 127;
        for (int i = 0; i < 8; i++) head[2 + i] = message_size >> (56 - 8 * i);
        head_size = 10;
    }
    memcpy(head + head_size, mask, 4);
    head_size += 4;
    template = allocate(NULL, message_size + 1);
    for (uint64_t i = 0; i < message_size; i++) template[i] = 'a' + i % 26;
    memcpy(template, prefix, strlen(prefix) < message_size ? strlen(prefix) : message_size);
    size_t frame_size = head_size + message_size;
    frame_count = frame_size < BATCH_SIZE ? BATCH_SIZE / frame_size : 1;
    if (frame_count > (uint32_t)in_flight) frame_count = in_flight;
    stream = allocate(NULL, frame_size * frame_count);
    frame_ends = allocate(NULL, frame_count * sizeof *frame_ends);
    for (uint32_t frame = 0; frame < frame_count; frame++) {
        unsigned char *start = stream + frame * frame_size;
        memcpy(start, head, head_size);
        for (uint64_t i = 0; i < message_size; i++) start[head_size + i] = template[i] ^ mask[i & 3];
        frame_ends[frame] = (frame + 1) * frame_size;
    }
}

/* A file of frames, each after its length in four bytes, big end first. The echoes' lengths are not known then. */
static void read_stream(void) {
    FILE *file = fopen(stream_file, "rb");
    unsigned char prefix[4];
    size_t size = 0;
    if (file == NULL) fail("%s: %s", stream_file, strerror(errno));
    while (fread(prefix, 1, 4, file) == 4) {
        size_t length = (size_t)prefix[0] << 24 | prefix[1] << 16 | prefix[2] << 8 | prefix[3];
        stream = allocate(stream, size + length);
        frame_ends = allocate(frame_ends, (frame_count + 1) * sizeof *frame_ends);
        if (fread(stream + size, 1, length, file) != length) fail("%s: a frame is cut", stream_file);
        size += length;
        frame_ends[frame_count++] = size;
    }
    if (frame_count == 0) fail("%s: no frame in it", stream_file);
    fclose(file);
}

static void schedule(struct connection *c) {
    c->owed += frame_ends[c->frame] - (c->frame ? frame_ends[c->frame - 1] : 0);
    c->frame = c->frame + 1 == frame_count ? 0 : c->frame + 1;
    c->outstanding++;
}

static void watch_writing(struct connection *c, int wanted) {
    if (c->wants_write == wanted) return;
    struct epoll_event event = {.events = EPOLLIN | (wanted ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
    c->wants_write = wanted;
}

static void flush(struct connection *c) {
    size_t end = frame_ends[frame_count - 1];
    while (c->owed) {
        size_t size = c->owed < end - c->position ? c->owed : end - c->position;
        ssize_t written = send(c->fd, stream + c->position, size, MSG_NOSIGNAL);
        if (written < 0) {
            if (errno != EAGAIN && storming) return; /* reading tells that it is lost */
            if (errno != EAGAIN) fail("send: %s", strerror(errno));
            watch_writing(c, 1);
            return;
        }
        c->owed -= written;
        c->position += written;
        if (c->position == end) c->position = 0;
    }
    if (c->pong_size) { /* between two frames */
        if (send(c->fd, c->pong, c->pong_size, MSG_NOSIGNAL) != (ssize_t)c->pong_size) fail("a pong was not taken");
        c->pong_size = 0;
    }
    watch_writing(c, 0);
}

static void send_close(struct connection *c) {
    static const unsigned char frame[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}; /* code 1000 */
    if (c->state == READY && send(c->fd, frame, sizeof frame, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
        fail("send: %s", strerror(errno));
}

static void send_at(struct connection *c, uint64_t due) {
    if (c->outstanding == c->due_capacity) {
        uint32_t capacity = c->due_capacity ? 2 * c->due_capacity : 8;
        uint64_t *ring = allocate(NULL, capacity * sizeof *ring);
        for (uint32_t i = 0; i < c->outstanding; i++) ring[i] = c->due[(c->due_first + i) % c->due_capacity];
        free(c->due);
        c->due = ring;
        c->due_first = 0;
        c->due_capacity = capacity;
    }
    c->due[(c->due_first + c->outstanding) % c->due_capacity] = due;
    schedule(c);
    flush(c);
}

static void record(uint64_t nanoseconds) {
    if (latency_count == latency_capacity) {
        latency_capacity = latency_capacity ? 2 * latency_capacity : 65536;
        latencies = allocate(latencies, latency_capacity * sizeof *latencies);
    }
    latencies[latency_count++] = nanoseconds / 1e3;
}

/* What comes back */

static void message_received(struct connection *c) {
    if (c->greeted < greetings) {
        c->greeted++;
        c->length = 0;
        return;
    }
    if (template != NULL && c->length != message_size)
        fail("an echo of %llu bytes, not %llu", (unsigned long long)c->length, (unsigned long long)message_size);
    c->length = 0;
    received_count++;
    if (mode == FAN_OUT) return;
    if (c->outstanding == 0) fail("an echo of nothing");
    c->outstanding--;
    if (mode == RATE) {
        uint64_t due = c->due[c->due_first];
        c->due_first = (c->due_first + 1) % c->due_capacity;
        if (!verifying) record(now() - due);
    } else if (mode == ECHO && sending) {
        schedule(c);
    } else if (storming) {
        c->back = 1;
        back_count++;
        record(now() - storm_began);
    }
}

static void control_received(struct connection *c) {
    unsigned opcode = c->first & 0x0f;
    if (opcode == 9 && c->pong_size == 0) {
        c->pong[0] = 0x8a;
        c->pong[1] = 0x80 | c->control_size;
        memset(c->pong + 2, 0, 4);
        memcpy(c->pong + 6, c->control, c->control_size);
        c->pong_size = 6 + c->control_size;
        ping_count++;
    } else if (opcode == 8 && storming) {
        c->lost = 1;
    } else if (opcode == 8 && !closing) {
        unsigned code = c->control_size < 2 ? 1005 : c->control[0] << 8 | c->control[1];
        fail("the server closed with code %u", code);
    }
}

static void frame_received(struct connection *c) {
    c->in_payload = 0;
    c->head_size = 0;
    if (c->first & 0x08) {
        control_received(c);
        c->control_size = 0;
    } else if (c->first & 0x80) {
        message_received(c);
    }
}

static void head_received(struct connection *c, const unsigned char *head) {
    c->first = head[0];
    if (head[1] & 0x80) fail("a frame with a mask from the server");
    c->remaining = head[1] & 0x7f;
    if (c->remaining == 126) {
        c->remaining = head[2] << 8 | head[3];
    } else if (c->remaining == 127) {
        c->remaining = 0;
        for (int i = 2; i < 10; i++) c->remaining = c->remaining << 8 | head[i];
    }
    if (!(c->first & 0x08)) c->length += c->remaining;
    c->in_payload = 1;
}

static unsigned whole_head(unsigned char second) {
    unsigned length = second & 0x7f;
    return length < 126 ? 2 : length == 126 ? 4 : 10;
}

static void take(struct connection *c, const unsigned char *data, size_t size) {
    while (size || (c->in_payload && c->remaining == 0)) {
        if (!c->in_payload) {
            if (c->head_size == 0 && size >= 10) {
                unsigned whole = whole_head(data[1]);
                head_received(c, data);
                data += whole;
                size -= whole;
            } else {
                c->head[c->head_size++] = *data++;
                size--;
                if (c->head_size >= 2 && c->head_size == whole_head(c->head[1])) head_received(c, c->head);
            }
            continue;
        }
        size_t part = size < c->remaining ? size : c->remaining;
        if (c->first & 0x08) {
            if (c->control_size + part > sizeof c->control) fail("a control frame of more than 125 bytes");
            memcpy(c->control + c->control_size, data, part);
            c->control_size += part;
        } else if (verifying && template != NULL && c->greeted == greetings && c->length <= message_size &&
                   memcmp(data, template + (c->length - c->remaining), part) != 0) {
            fail("an echo with other content");
        }
        data += part;
        size -= part;
        c->remaining -= part;
        if (c->remaining == 0) frame_received(c);
    }
}

/* Opening and closing */

static void begin(struct connection *c) {
    int yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
    c->wants_write = 1;
    c->state = CONNECTING;
    c->answer_size = 0;
    c->since = now();
    begun++;
}

/* Mode storm: a connection that is lost, or was not had, is opened again at once; one that was refused, a little later. */
static void open_again(struct connection *c, int was_refused) {
    struct connection fresh = {.answer = c->answer, .state = CLOSED, .since = now() + REFUSED_PAUSE};
    back_count -= c->back;
    close(c->fd);
    *c = fresh;
    if (was_refused) refused[(refused_first + refused_count++) % connection_count] = c;
    else begin(c);
}

static void try_refused_again(void) {
    uint64_t time = now();
    while (refused_count && refused[refused_first]->since <= time) {
        begin(refused[refused_first]);
        refused_first = (refused_first + 1) % connection_count;
        refused_count--;
    }
}

static void connected(struct connection *c) {
    char request[1024];
    int error = 0;
    socklen_t error_size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &error_size);
    if (error && storming) {
        open_again(c, 1);
        return;
    }
    if (error) fail("connect: %s", strerror(error));
    int size = mode == HTTP
        ? snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n", path, port)
        : snprintf(request, sizeof request,
                   "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                   path, port, offer ? "Sec-WebSocket-Extensions: " : "", offer ? offer : "", offer ? "\r\n" : "");
    if (size >= (int)sizeof request) fail("the path is too long");
    if (send(c->fd, request, size, MSG_NOSIGNAL) != size && !storming) fail("the request was not taken");
    watch_writing(c, 0);
    c->state = HANDSHAKING;
}

static void drop(struct connection *c, int reset) {
    struct linger linger = {.l_onoff = 1};
    if (reset) setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    close(c->fd);
    c->state = CLOSED;
    closed_count++;
}

static int http_answer_is_whole(struct connection *c) {
    char *end = strstr(c->answer, "\r\n\r\n"), *length = strcasestr(c->answer, "\r\ncontent-length:");
    return end && length && length < end && (size_t)(end + 4 - c->answer) + atol(length + 17) <= c->answer_size;
}

/* Part of the answer to a request; what follows the head is frames already. */
static void answered(struct connection *c, const unsigned char *data, size_t size) {
    c->answer = allocate(c->answer, c->answer_size + size + 1);
    memcpy(c->answer + c->answer_size, data, size);
    c->answer_size += size;
    c->answer[c->answer_size] = 0;
    if (mode == HTTP) {
        if ((size == 0 || http_answer_is_whole(c)) && c->answer_size) {
            if (strncmp(c->answer + 8, " 200", 4) != 0) fail("instead of 200: %s", c->answer);
        } else if (size) {
            return;
        } else {
            fail("no answer to a request");
        }
    } else {
        char *end = strstr(c->answer, "\r\n\r\n");
        if (size == 0 && storming) {
            open_again(c, 0);
            return;
        }
        if (size == 0) fail("the server ended the connection: %s", c->answer);
        if (end == NULL) return;
        if (strncmp(c->answer, "HTTP/1.1 101", 12) != 0 || strstr(c->answer, ACCEPT) == NULL)
            fail("the handshake was refused: %s", c->answer);
        if (expected_extension && strstr(c->answer, expected_extension) == NULL)
            fail("the handshake agreed on other than %s: %s", expected_extension, c->answer);
        if (mode != OPEN) {
            size_t head = end + 4 - c->answer;
            c->state = READY;
            open_count++;
            take(c, (unsigned char *)c->answer + head, c->answer_size - head);
            free(c->answer);
            c->answer = NULL;
            if (storming) {
                schedule(c);
                flush(c);
            }
            return;
        }
    }
    received_count++;
    if (sending && !verifying) record(now() - c->since);
    drop(c, mode == OPEN);
    if (sending) begin(c);
}

static void readable(struct connection *c) {
    static unsigned char data[READ_SIZE];
    ssize_t size = recv(c->fd, data, sizeof data, 0);
    if (size < 0) {
        if (errno == EAGAIN) return;
        if (!closing && !storming) fail("recv: %s", strerror(errno));
        size = 0;
    }
    if (c->state == HANDSHAKING) {
        answered(c, data, size);
        return;
    }
    if (size == 0 && storming) {
        open_again(c, 0);
        return;
    }
    if (size == 0) {
        if (!closing) fail("the server dropped a connection");
        drop(c, 0);
        return;
    }
    take(c, data, size);
    if (c->lost) {
        open_again(c, 0);
        return;
    }
    if (c->owed || c->pong_size) flush(c);
}

static void turn(uint64_t timeout) {
    struct epoll_event events[256];
    struct timespec wait = {.tv_sec = timeout / SECOND, .tv_nsec = timeout % SECOND};
    int count = syscall(SYS_epoll_pwait2, poller, events, 256, &wait, NULL, 0);
    if (count < 0 && errno == ENOSYS) count = epoll_wait(poller, events, 256, timeout / 1000000);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c->state == CONNECTING) {
            if (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) connected(c);
            continue;
        }
        if (events[i].events & EPOLLOUT && c->owed) flush(c);
        if (events[i].events & ~EPOLLOUT && c->state != CLOSED) readable(c);
    }
}

static void open_all(void) {
    uint64_t deadline = now() + OPEN_TIMEOUT;
    while (open_count < connection_count) {
        while (begun < connection_count && begun - open_count < (uint32_t)opening) begin(&connections[begun]);
        turn(SECOND / 10);
        if (now() > deadline) fail("%u of %u connections after 60 s", open_count, connection_count);
    }
}

static void settle(void) {
    uint64_t end = now() + SETTLING;
    while (now() < end) turn(SECOND / 100);
}

static void drain(void) {
    uint64_t deadline = now() + DRAIN_TIMEOUT;
    uint32_t i = 0;
    while (i < connection_count && now() < deadline) {
        while (i < connection_count && connections[i].outstanding == 0) i++;
        if (i < connection_count) turn(SECOND / 100);
    }
    if (i < connection_count) fail("echoes are missing after 5 s");
}

static void close_all(void) {
    uint64_t deadline = now() + DRAIN_TIMEOUT;
    closing = 1;
    closed_count = 0;
    for (uint32_t i = 0; i < connection_count; i++) send_close(&connections[i]);
    while (closed_count < connection_count && now() < deadline) turn(SECOND / 100);
}

/* The measurement */

static int by_value(const void *a, const void *b) {
    float left = *(const float *)a, right = *(const float *)b;
    return (left > right) - (left < right);
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_latencies(void) {
    static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
    static const char *names[] = {"p50", "p90", "p99", "p99.9"};
    if (latency_count == 0) return;
    qsort(latencies, latency_count, sizeof *latencies, by_value);
    printf(", \"latency\": {");
    for (int i = 0; i < 4; i++) printf("\"%s\": %.1f, ", names[i], latencies[(size_t)(quantiles[i] * (latency_count - 1))]);
    printf("\"max\": %.1f}", latencies[latency_count - 1]);
}

static void announce(const char *what) {
    printf("%s\n", what);
    fflush(stdout);
}

static void measure(void) {
    uint64_t start = now(), begin_count = 0, measured_from = start + warm_up * SECOND;
    uint64_t end = measured_from + duration * SECOND, next_due = start, sent = 0, last_sent = 0;
    double cpu = 0;
    uint64_t time = start;
    sending = verifying = 1;
    if (mode == ECHO)
        for (uint32_t i = 0; i < connection_count; i++) {
            for (int j = 0; j < in_flight; j++) schedule(&connections[i]);
            flush(&connections[i]);
        }
    else if (mode == OPEN || mode == HTTP)
        for (uint32_t i = 0; i < connection_count; i++) begin(&connections[i]);
    while (time < end) {
        uint64_t wait = end - time;
        if (mode == RATE) {
            for (; next_due <= time; next_due = start + ++sent * (SECOND / rate))
                send_at(&connections[sent % connection_count], next_due);
            if (next_due - time < wait) wait = next_due - time;
        } else if (mode == FAN_OUT && received_count == sent * connection_count) {
            if (sent && !verifying) record(time - last_sent);
            last_sent = now();
            schedule(&connections[0]);
            connections[0].outstanding = 0;
            flush(&connections[0]);
            sent++;
        }
        turn(wait < SECOND / 10 ? wait : SECOND / 10);
        time = now();
        if (message_count && !verifying && received_count - begin_count >= message_count) break;
        if (verifying && time >= measured_from) {
            verifying = 0;
            measured_from = time; /* late, where others had the core */
            end = time + duration * SECOND;
            begin_count = received_count;
            cpu = cpu_seconds();
            announce("measuring");
        }
    }
    uint64_t messages = received_count - begin_count;
    sending = 0;
    cpu = cpu_seconds() - cpu;
    announce("measured");
    if (mode == OPEN || mode == HTTP) {
        uint64_t deadline = now() + DRAIN_TIMEOUT;
        while (closed_count < begun && now() < deadline) turn(SECOND / 100);
    } else if (mode == FAN_OUT) {
        uint64_t deadline = now() + DRAIN_TIMEOUT;
        while (received_count < sent * connection_count && now() < deadline) turn(SECOND / 100);
        if (received_count != sent * connection_count) fail("messages to all are missing after 5 s");
        close_all();
    } else {
        drain();
        close_all();
    }
    double seconds = (time - measured_from) / (double)SECOND;
    printf("{\"messages\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"client_cpu\": %.3f", (unsigned long long)messages,
           seconds, messages / seconds, cpu / seconds);
    print_latencies();
    puts("}");
}

static void echo_once(void) {
    verifying = 1;
    for (uint32_t i = 0; i < connection_count; i++) {
        for (int j = 0; j < in_flight; j++) schedule(&connections[i]);
        flush(&connections[i]);
        if (i % opening == 0) turn(0);
    }
    drain();
    announce("measuring");
}

/* One message on each connection; then nothing but pongs until standard input ends. */
static void idle(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event events[256];
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0) fail("standard input is no pipe");
    epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
    echo_once();
    epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event);
    for (int waiting = 1; waiting;) {
        int count = epoll_wait(poller, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL) waiting = 0;
            else readable(events[i].data.ptr);
        }
    }
    epoll_ctl(poller, EPOLL_CTL_DEL, 0, NULL);
    close_all();
    printf("{\"connections\": %u, \"pings\": %llu}\n", connection_count, (unsigned long long)ping_count);
}

/* The server is ended or reloaded by somebody else, who has the time of it. */
static void storm(void) {
    refused = allocate(NULL, connection_count * sizeof *refused);
    echo_once();
    storming = 1;
    storm_began = now();
    uint64_t attempts = begun, deadline = storm_began + OPEN_TIMEOUT;
    while (back_count < connection_count) {
        turn(refused_count ? REFUSED_PAUSE : SECOND / 10);
        try_refused_again();
        if (now() > deadline) fail("%u of %u connections are back after 60 s", back_count, connection_count);
    }
    printf("{\"connections\": %u, \"ended\": %.6f, \"attempts\": %llu", connection_count, now() / (double)SECOND,
           (unsigned long long)(begun - attempts));
    print_latencies();
    puts("}");
    fflush(stdout);
    while (getchar() != EOF) continue; /* the connections are looked at from outside */
    storming = 0;
    close_all();
}

static void read_options(int count, char **arguments) {
    static const struct option options[] = {
        {"mode", 1, NULL, 'm'},     {"port", 1, NULL, 'p'},    {"path", 1, NULL, 'u'},   {"connections", 1, NULL, 'c'},
        {"size", 1, NULL, 's'},     {"in-flight", 1, NULL, 'f'}, {"warm-up", 1, NULL, 'w'}, {"duration", 1, NULL, 'd'},
        {"rate", 1, NULL, 'r'},     {"binary", 0, NULL, 'b'},  {"stream", 1, NULL, 'i'}, {"offer", 1, NULL, 'o'},
        {"expect", 1, NULL, 'e'},   {"opening", 1, NULL, 'n'}, {"count", 1, NULL, 't'},  {"prefix", 1, NULL, 'x'},
        {"greetings", 1, NULL, 'g'}, {NULL, 0, NULL, 0},
    };
    static const char *modes[] = {"echo", "rate", "fan-out", "idle", "open", "http", "storm"};
    int option;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'm':
            for (mode = ECHO; strcmp(modes[mode], optarg) != 0; mode++)
                if (mode == STORM) fail("no mode %s", optarg);
            break;
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'c': connection_count = atoi(optarg); break;
        case 's': message_size = atoll(optarg); break;
        case 'f': in_flight = atoi(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'd': duration = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'b': binary = 1; break;
        case 'i': stream_file = optarg; break;
        case 'o': offer = optarg; break;
        case 'e': expected_extension = optarg; break;
        case 'x': prefix = optarg; break;
        case 'g': greetings = atoll(optarg); break;
        case 't': message_count = atoll(optarg); break;
        case 'n': opening = atoi(optarg); break;
        default: exit(2);
        }
    }
    if (port <= 0 || connection_count < 1 || in_flight < 1 || opening < 1 || rate <= 0) fail("an option is out of range");
}

int main(int count, char **arguments) {
    struct rlimit limit;
    read_options(count, arguments);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    prctl(PR_SET_TIMERSLACK, 1);
    if (stream_file) read_stream();
    else make_stream();
    connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (connections == NULL || poller < 0) fail("%s", strerror(errno));
    if (mode != OPEN && mode != HTTP) open_all();
    if (mode == FAN_OUT) settle();
    if (mode == IDLE) idle();
    else if (mode == STORM) storm();
    else measure();
    return 0;
}
