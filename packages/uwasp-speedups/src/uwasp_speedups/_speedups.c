/* The hot paths of uwasp-core in C: reading a frame, delivering a message, sending one, to one or to many.

   Every function here stands before one in Python, which stays the reference. It does the ordinary case, of which a
   busy server has a million to one of the others, and hands all else to the function in Python *before* it has done
   anything: a frame that is fragmented, compressed, a ping; a socket that takes no more; a lock that somebody holds; a
   server that raised.

   The attributes of the Python objects are read and written where their classes' __slots__ lie. The GIL is held
   throughout, also during recv and send, which never wait here: so what one of these functions does is done at once
   for all other threads. What Python code does under a connection's lock is not; hence the look at the lock. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#if PY_VERSION_HEX < 0x030d0000 /* 3.13 has them public */
#define PyLong_AsInt _PyLong_AsInt
#endif

#define FINAL_TEXT 0x81 /* RFC 6455, section 5.2 */
#define FINAL_BINARY 0x82
#define NO_FRAME -1
#define MASK 0x80
#define MASK_SIZE 4
#ifdef __GNUC__
#define PREFETCH(address) __builtin_prefetch(address)
#define ALWAYS_INLINE static inline __attribute__((always_inline)) /* or gcc takes what only fetches for idle */
#else
#define PREFETCH(address) (void)(address)
#define ALWAYS_INLINE static inline
#endif
#define LARGEST_AT_ONCE (1 << 18) /* bytes for which there is room before they have come: as many as one read brings */
#define LARGE_READS 4             /* times the size of other reads */
#define COPIED 1024   /* up to this size, one copy into a frame is cheaper than two parts for the kernel */

/* The attributes that are used here, and where they are in an object of their class. */

#define CONNECTION_SLOTS(SLOT)                                                                                         \
    SLOT(_batch) SLOT(_busy) SLOT(_corked) SLOT(_heard) SLOT(_inbox) SLOT(_is_crowded) SLOT(_is_fast) SLOT(_listener)  \
    SLOT(_lock) SLOT(_may_cork) SLOT(_opened_at) SLOT(_options) SLOT(_outgoing) SLOT(_paused) SLOT(_protocol)          \
    SLOT(_queued) SLOT(_slice_ends) SLOT(_told) SLOT(bytes_in) SLOT(bytes_out) SLOT(conversation) SLOT(corked_since)   \
    SLOT(fd) SLOT(messages_in) SLOT(messages_out) SLOT(server)
#define PROTOCOL_SLOTS(SLOT)                                                                                           \
    SLOT(_buffer) SLOT(_frame) SLOT(_message) SLOT(accepts) SLOT(arriving) SLOT(deflate) SLOT(max_message_size)        \
    SLOT(max_messages) SLOT(state) SLOT(unread)
#define WEBSOCKET_SLOTS(SLOT) SLOT(_connection)

#define AS_OFFSET(name) Py_ssize_t name;
#define AS_NAME(name) #name,
static struct { CONNECTION_SLOTS(AS_OFFSET) } in_connection;
static struct { PROTOCOL_SLOTS(AS_OFFSET) } in_protocol;
static struct { WEBSOCKET_SLOTS(AS_OFFSET) } in_websocket;
static const char *const connection_slots[] = {CONNECTION_SLOTS(AS_NAME) NULL};
static const char *const protocol_slots[] = {PROTOCOL_SLOTS(AS_NAME) NULL};
static const char *const websocket_slots[] = {WEBSOCKET_SLOTS(AS_NAME) NULL};

#define AT(object, offset) (*(PyObject **)((char *)(object) + (offset)))
#define C(name) AT(self, in_connection.name)
#define P(name) AT(protocol, in_protocol.name)

static PyTypeObject *connection_type, *protocol_type, *websocket_type, *lock_type;
static PyCFunction lock_is_locked; /* of lock_type */
static PyObject *open_state;       /* uwasp.protocol.OPEN */
static long readable;              /* uwasp.poller.READABLE */
static PyObject *slow_receive, *slow_consume, *slow_dispatch, *slow_send, *slow_take, *slow_websocket_send;
static double corked_time, slice; /* seconds */
static Py_ssize_t corked_size; /* bytes */
static Py_ssize_t read_size;
static char *read_buffer;
static int read_buffer_is_used;

static PyObject *zero, *over; /* uwasp.incoming.SLICE_IS_OVER */

static PyObject *name_append, *name_broken, *name_connections, *name_consume_end, *name_cork, *name_corked, *name_cut,
    *name_failed, *name_flush_corked, *name_hear_again, *name_max_queue_size, *name_now, *name_on_message,
    *name_put_back, *name_read_on, *name_ready, *name_send_shared, *name_take_back, *name_tell, *name_watch_outgoing;

static void set(PyObject **slot, PyObject *value) { /* takes the reference */
    PyObject *old = *slot;
    *slot = value;
    Py_XDECREF(old);
}

#define SET(slot, value) set(&(slot), Py_NewRef(value))

/* Add to a count. The exception of a failure stays set. */
static int add(PyObject **slot, Py_ssize_t amount) {
    Py_ssize_t sum = *slot ? PyLong_AsSsize_t(*slot) : 0;
    PyObject *result;
    if (sum == -1 && PyErr_Occurred()) return -1;
    result = PyLong_FromSsize_t(sum + amount);
    if (result == NULL) return -1;
    set(slot, result);
    return 0;
}

/* Reading */

/* Unmask (RFC 6455, section 5.3); return whether all of it is ASCII. */
static int unmask(unsigned char *to, const unsigned char *from, Py_ssize_t size, const unsigned char *mask) {
    uint32_t mask4;
    uint64_t mask8, word, all = 0;
    Py_ssize_t i = 0;
    unsigned char rest = 0;
    memcpy(&mask4, mask, MASK_SIZE);
    mask8 = (uint64_t)mask4 << 32 | mask4;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= mask8;
        all |= word;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++) rest |= to[i] = from[i] ^ mask[i & 3];
    return ((all | (uint64_t)rest) & 0x8080808080808080ull) == 0;
}

static PyObject *text_message(const unsigned char *payload, Py_ssize_t size, const unsigned char *mask) {
    PyObject *text, *decoded;
    if (size == 0) return PyUnicode_New(0, 0);
    text = PyUnicode_New(size, 127);
    if (text == NULL) return NULL;
    if (unmask(PyUnicode_1BYTE_DATA(text), payload, size, mask)) return text;
    decoded = PyUnicode_DecodeUTF8((const char *)PyUnicode_1BYTE_DATA(text), size, NULL);
    Py_DECREF(text);
    return decoded;
}

static PyObject *binary_message(const unsigned char *payload, Py_ssize_t size, const unsigned char *mask) {
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size);
    if (bytes != NULL && size) unmask((unsigned char *)PyBytes_AS_STRING(bytes), payload, size, mask);
    return bytes;
}

/* As uwasp.protocol.take_messages; -1 for an exception. `*position` is where it stopped, in either case. */
static int take(const unsigned char *data, Py_ssize_t *position, Py_ssize_t end, Py_ssize_t largest, Py_ssize_t most,
                PyObject *messages, PyObject *accepts) {
    const int text = accepts == (PyObject *)&PyBytes_Type ? NO_FRAME : FINAL_TEXT;
    const int binary = accepts == (PyObject *)&PyUnicode_Type ? NO_FRAME : FINAL_BINARY;
    Py_ssize_t at = *position;
    while (end - at >= 2 + MASK_SIZE && PyList_GET_SIZE(messages) < most) {
        const unsigned char *frame = data + at;
        Py_ssize_t length = (Py_ssize_t)frame[1] - MASK, head = 2;
        PyObject *message;
        int failed;
        if (length == 126) {
            length = (Py_ssize_t)frame[2] << 8 | frame[3];
            head = 4;
        } else if (length < 0 || length > 125) {
            break;
        }
        if (end - at < head + MASK_SIZE + length || length > largest) break;
        if (frame[0] == text) message = text_message(frame + head + MASK_SIZE, length, frame + head);
        else if (frame[0] == binary) message = binary_message(frame + head + MASK_SIZE, length, frame + head);
        else break;
        *position = at;
        if (message == NULL) return -1;
        failed = PyList_Append(messages, message);
        Py_DECREF(message);
        if (failed) return -1;
        at += head + MASK_SIZE + length;
    }
    *position = at;
    return 0;
}

static PyObject *take_messages(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    Py_ssize_t position, largest, most;
    if (count != 6 || !PyBytes_CheckExact(args[0]) || !PyList_CheckExact(args[4])) {
        PyErr_SetString(PyExc_TypeError,
                        "take_messages(data: bytes, position: int, largest: int, most: int, messages: list, accepts: type)");
        return NULL;
    }
    position = PyLong_AsSsize_t(args[1]);
    largest = PyLong_AsSsize_t(args[2]);
    most = PyLong_AsSsize_t(args[3]);
    if ((position == -1 || largest == -1 || most == -1) && PyErr_Occurred()) return NULL;
    if (position < 0 || position > PyBytes_GET_SIZE(args[0])) {
        PyErr_SetString(PyExc_ValueError, "position is outside of data");
        return NULL;
    }
    if (take((const unsigned char *)PyBytes_AS_STRING(args[0]), &position, PyBytes_GET_SIZE(args[0]), largest, most,
             args[4], args[5]))
        return NULL;
    return PyLong_FromSsize_t(position);
}

/* A connection */

/* Remember what tells whether a lock of this type is held, if it is the interpreter's own. It is looked for here and not
   in `_thread`, where gevent's may stand in for it. */
static void know_lock(PyTypeObject *type) {
    PyObject *locked;
    if (strcmp(type->tp_name, "_thread.lock")) return;
    locked = PyObject_GetAttrString((PyObject *)type, "locked");
    if (locked == NULL) {
        PyErr_Clear();
    } else if (Py_TYPE(locked) == &PyMethodDescr_Type &&
               ((PyMethodDescrObject *)locked)->d_method->ml_flags == METH_NOARGS) {
        lock_is_locked = ((PyMethodDescrObject *)locked)->d_method->ml_meth;
        lock_type = (PyTypeObject *)Py_NewRef(type); /* for ever */
    }
    Py_XDECREF(locked);
}

/* Whether no Python code is within `with self._lock`. To ask any other lock could run Python, so the answer is no. */
static int lock_is_free(PyObject *self) {
    PyObject *lock = C(_lock), *locked;
    if (lock == NULL) return 0;
    if (lock_type == NULL) know_lock(Py_TYPE(lock));
    if (Py_TYPE(lock) != lock_type) return 0;
    locked = lock_is_locked(lock, NULL);
    if (locked == NULL) {
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(locked);
    return locked == Py_False;
}

/* Call the function in Python with what this one was called with. */
static PyObject *in_python(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *all[4] = {self};
    Py_ssize_t total = count + (names ? PyTuple_GET_SIZE(names) : 0);
    if (total > 3) {
        PyErr_SetString(PyExc_TypeError, "too many arguments");
        return NULL;
    }
    for (Py_ssize_t i = 0; i < total; i++) all[i + 1] = args[i];
    return PyObject_Vectorcall(function, all, count + 1, names);
}

static int discard(PyObject *result) {
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* What was raised, or what went wrong, with its traceback. */
static PyObject *raised(void) {
#if PY_VERSION_HEX >= 0x030c0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) PyException_SetTraceback(value, traceback);
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* How many more messages fit into the inbox; 0 where it is full, or where that is for the Python to say. */
static Py_ssize_t room(PyObject *self, PyObject *protocol) {
    PyObject *inbox = C(_inbox), *limit;
    Py_ssize_t most = PyLong_AsSsize_t(P(max_messages)), bytes = 0;
    if (inbox != Py_None) {
        if (!PyList_CheckExact(inbox) || C(_options) == NULL) return 0;
        most -= PyList_GET_SIZE(inbox);
        limit = PyObject_GetAttr(C(_options), name_max_queue_size);
        if (limit != NULL) {
            bytes = PyLong_AsSsize_t(limit);
            Py_DECREF(limit);
        }
        if (PyLong_AsSsize_t(C(_queued)) >= bytes) most = 0;
    }
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return most > 0 ? most : 0;
}

/* Put messages in the inbox and the connection in `ready`; Incoming._parse_locked in the ordinary case. `begun` is what
   was read for them before. */
static int deliver(PyObject *self, PyObject *messages, Py_ssize_t size, Py_ssize_t begun) {
    PyObject *inbox = C(_inbox), *ready;
    int failed;
    if (add(&C(bytes_in), size) || add(&C(messages_in), PyList_GET_SIZE(messages)) || add(&C(_queued), begun + size))
        return -1;
    if (inbox == Py_None) SET(C(_inbox), messages);
    else if (PyList_SetSlice(inbox, PyList_GET_SIZE(inbox), PyList_GET_SIZE(inbox), messages)) return -1;
    if (C(_busy) == Py_True) return 0;
    ready = PyObject_GetAttr(C(_listener), name_ready);
    if (ready == NULL) return -1;
    SET(C(_busy), Py_True);
    failed = discard(PyObject_CallMethodOneArg(ready, name_append, self));
    Py_DECREF(ready);
    return failed;
}

/* A message that comes in one frame and several reads. It is read to where it will be, and unmasked there. A protocol
   has it as `arriving`, in a capsule; what is not ordinary about it is for the Python, which takes it back first. */
typedef struct {
    PyObject *message; /* bytes, or a str, of which all that has come is ASCII; not yet as long as it will be, perhaps */
    Py_ssize_t come, length;
    unsigned char first, mask[MASK_SIZE];
} Arriving;

static unsigned char *place_of(Arriving *arriving) {
    return PyUnicode_Check(arriving->message) ? PyUnicode_1BYTE_DATA(arriving->message)
                                              : (unsigned char *)PyBytes_AS_STRING(arriving->message);
}

static Py_ssize_t size_of(Arriving *arriving) {
    return PyUnicode_Check(arriving->message) ? PyUnicode_GET_LENGTH(arriving->message) : PyBytes_GET_SIZE(arriving->message);
}

/* Unmask what has come next, or mask it again. Whether that is possible: a str is to be ASCII. */
static int unmask_next(Arriving *arriving, const unsigned char *from, Py_ssize_t size) {
    unsigned char mask[MASK_SIZE];
    for (int i = 0; i < MASK_SIZE; i++) mask[i] = arriving->mask[(arriving->come + i) % MASK_SIZE];
    return unmask(place_of(arriving) + arriving->come, from, size, mask) || PyBytes_Check(arriving->message);
}

static void forget_arriving(PyObject *capsule) {
    Arriving *arriving = PyCapsule_GetPointer(capsule, NULL);
    Py_XDECREF(arriving->message);
    PyMem_Free(arriving);
}

/* Begin with a frame that has not come in full; whether it is one to be read so. -1 for an exception. */
static int begin_arriving(PyObject *protocol, const unsigned char *frame, Py_ssize_t size, Py_ssize_t largest) {
    const int text = frame[0] == FINAL_TEXT;
    PyObject *capsule, *unwanted = text ? (PyObject *)&PyBytes_Type : (PyObject *)&PyUnicode_Type;
    Arriving *arriving;
    Py_ssize_t length = 0, room, head = 4;
    if (size < 10 + MASK_SIZE || frame[1] < (MASK | 126) || (!text && frame[0] != FINAL_BINARY) || P(accepts) == unwanted)
        return 0;
    if (frame[1] == (MASK | 127)) head = 10;
    for (int i = 2; i < head; i++) {
        if (length >> (8 * sizeof length - 9)) return 0;
        length = length << 8 | frame[i];
    }
    if (length > largest || length <= size - head - MASK_SIZE) return 0;
    arriving = PyMem_Malloc(sizeof *arriving);
    if (arriving == NULL) return PyErr_NoMemory(), -1;
    room = length < LARGEST_AT_ONCE ? length : LARGEST_AT_ONCE;
    arriving->message = text ? PyUnicode_New(room, 127) : PyBytes_FromStringAndSize(NULL, room);
    arriving->come = 0;
    arriving->length = length;
    arriving->first = frame[0];
    memcpy(arriving->mask, frame + head, MASK_SIZE);
    capsule = arriving->message ? PyCapsule_New(arriving, NULL, forget_arriving) : NULL;
    if (capsule == NULL) {
        Py_XDECREF(arriving->message);
        PyMem_Free(arriving);
        return -1;
    }
    if (!unmask_next(arriving, frame + head + MASK_SIZE, size - head - MASK_SIZE)) {
        Py_DECREF(capsule);
        return 0;
    }
    arriving->come = size - head - MASK_SIZE;
    set(&P(arriving), capsule);
    return 1;
}

/* Have the Python go on with what is arriving. */
static int give_back(PyObject *protocol) {
    PyObject *capsule = P(arriving), *mask, *come, *first, *length, *arguments[5];
    unsigned char turned[MASK_SIZE];
    Arriving *arriving;
    int failed = -1;
    if (capsule == NULL || !PyCapsule_CheckExact(capsule)) return 0;
    arriving = PyCapsule_GetPointer(capsule, NULL);
    for (int i = 0; i < MASK_SIZE; i++) turned[i] = arriving->mask[(arriving->come + i) % MASK_SIZE];
    come = arriving->first == FINAL_TEXT ? PyUnicode_DecodeASCII((char *)place_of(arriving), arriving->come, NULL)
                                         : PyBytes_FromStringAndSize((char *)place_of(arriving), arriving->come);
    mask = PyBytes_FromStringAndSize((char *)turned, MASK_SIZE);
    first = PyLong_FromLong(arriving->first);
    length = PyLong_FromSsize_t(arriving->length);
    if (come != NULL && mask != NULL && first != NULL && length != NULL) {
        arguments[0] = protocol, arguments[1] = first, arguments[2] = come, arguments[3] = mask, arguments[4] = length;
        SET(P(arriving), Py_None); /* frees it */
        failed = discard(PyObject_VectorcallMethod(name_take_back, arguments, 5, NULL));
    }
    Py_XDECREF(come);
    Py_XDECREF(mask);
    Py_XDECREF(first);
    Py_XDECREF(length);
    return failed;
}

/* For a read that brought nothing: `size` is not above 0. */
static PyObject *nothing_read(PyObject *self, Py_ssize_t size) {
    PyObject *error, *result;
    if (size < 0) PyErr_SetFromErrno(PyExc_OSError); /* of which BlockingIOError and InterruptedError are */
    error = size < 0 ? raised() : Py_NewRef(Py_None);
    if (PyErr_GivenExceptionMatches(error, PyExc_BlockingIOError) ||
        PyErr_GivenExceptionMatches(error, PyExc_InterruptedError))
        result = Py_NewRef(Py_None);
    else
        result = PyObject_CallMethodOneArg(self, name_broken, error);
    Py_DECREF(error);
    return result;
}

/* Have room for so many bytes more of a message that is arriving. */
static int make_room(Arriving *arriving, Py_ssize_t wanted) {
    Py_ssize_t room = size_of(arriving);
    if (room - arriving->come >= wanted) return 0;
    room = arriving->length - room < room ? arriving->length : 2 * room; /* no less than a read brings */
    return PyUnicode_Check(arriving->message) ? PyUnicode_Resize(&arriving->message, room)
                                              : _PyBytes_Resize(&arriving->message, room);
}

/* Read what comes next of a message that is arriving, and what follows it to `read_buffer`: as much as the Python reads.
   What recv returns, or -2 for an exception. */
static Py_ssize_t read_next(Arriving *arriving, int fd) {
    Py_ssize_t left = arriving->length - arriving->come, most = left > read_size ? LARGE_READS * read_size : read_size;
    struct iovec parts[2] = {{NULL, left < most ? left : most}, {read_buffer, 0}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    if (left < most) parts[1].iov_len = most - left < read_size ? most - left : read_size;
    if (make_room(arriving, parts[0].iov_len)) return -2;
    parts[0].iov_base = place_of(arriving) + arriving->come;
    return recvmsg(fd, &message, MSG_DONTWAIT);
}

/* Have the Python go on with a message that is arriving, and with what was read next. */
static PyObject *read_on(PyObject *self, PyObject *protocol, Arriving *arriving, PyObject *messages, Py_ssize_t size) {
    Py_ssize_t left = arriving->length - arriving->come, own = size < left ? size : left;
    PyObject *arguments[4] = {self, messages, PyBytes_FromStringAndSize(NULL, size), PyLong_FromSsize_t(size)};
    PyObject *result = NULL;
    if (arguments[2] != NULL) {
        memcpy(PyBytes_AS_STRING(arguments[2]), place_of(arriving) + arriving->come, own);
        memcpy(PyBytes_AS_STRING(arguments[2]) + own, read_buffer, size - own);
    }
    if (arguments[2] != NULL && arguments[3] != NULL && give_back(protocol) == 0)
        result = PyObject_VectorcallMethod(name_read_on, arguments, 4, NULL);
    Py_XDECREF(arguments[2]);
    Py_XDECREF(arguments[3]);
    return result;
}

/* Whether a frame may begin with what is looked at next, of a client that sends ordinary ones. */
static int is_between_frames(PyObject *protocol) {
    return P(state) == open_state && P(deflate) == Py_None && PyBytes_CheckExact(P(_buffer)) &&
           PyBytes_GET_SIZE(P(_buffer)) == 0 && P(_frame) == Py_None && P(_message) == Py_None;
}

/* Whether nothing but ordinary frames was read so far, or an ordinary message is arriving. */
static int is_ordinary(PyObject *protocol) {
    return P(unread) == Py_None && is_between_frames(protocol) && !read_buffer_is_used;
}

/* `rest` was read behind `messages`. Where these are as many as there is room for, it is left unread; else something
   begins it that the Python is to look at. */
static PyObject *leave_rest(PyObject *self, PyObject *protocol, PyObject *messages, PyObject *rest, Py_ssize_t most,
                            Py_ssize_t total, Py_ssize_t begun) {
    PyObject *arguments[5] = {self, messages, rest}, *unread = NULL, *result = NULL;
    if (PyList_GET_SIZE(messages) == most) {
        unread = Py_BuildValue("(On)", rest, (Py_ssize_t)0); /* may collect garbage, and so run anything */
        if (unread == NULL) return NULL;
        if (room(self, protocol) >= most && is_ordinary(protocol) && lock_is_free(self)) {
            set(&P(unread), unread);
            return deliver(self, messages, total, begun) ? NULL : Py_NewRef(Py_None);
        }
        Py_DECREF(unread);
    }
    arguments[3] = PyLong_FromSsize_t(total);
    arguments[4] = PyLong_FromSsize_t(begun);
    if (arguments[3] != NULL && arguments[4] != NULL)
        result = PyObject_VectorcallMethod(name_read_on, arguments, 5, NULL);
    Py_XDECREF(arguments[3]);
    Py_XDECREF(arguments[4]);
    return result;
}

static PyObject *receive(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *protocol = C(_protocol), *messages, *now, *result = NULL;
    Py_ssize_t size, total, begun = 0, position = 0, largest, most; /* `total` bytes were read, `size` of them for here */
    Arriving *arriving = NULL;
    int fd, began = 0;
    if (protocol == NULL || Py_TYPE(protocol) != protocol_type)
        return in_python(slow_receive, self, args, count, names);
    if (count || names || C(_listener) == NULL || !is_ordinary(protocol)) {
        if (give_back(protocol)) return NULL;
        return in_python(slow_receive, self, args, count, names);
    }
    fd = PyLong_AsInt(C(fd));
    largest = PyLong_AsSsize_t(P(max_message_size));
    if (PyErr_Occurred()) return NULL;
    messages = PyList_New(0); /* may collect garbage, and so run anything: before the buffer is filled */
    now = messages ? PyObject_GetAttr(C(_listener), name_now) : NULL;
    if (now == NULL) {
        Py_XDECREF(messages);
        return NULL;
    }
    most = room(self, protocol);
    /* Again, and for good: no Python runs until all has been read. Who holds the lock may be in the midst of what had been
       left unread. */
    if (most == 0 || !is_ordinary(protocol) || !lock_is_free(self)) {
        Py_DECREF(messages);
        Py_DECREF(now);
        if (give_back(protocol)) return NULL;
        return in_python(slow_receive, self, args, count, names);
    }
    if (P(arriving) == Py_None) {
        size = total = recv(fd, read_buffer, read_size, MSG_DONTWAIT);
    } else {
        arriving = PyCapsule_GetPointer(P(arriving), NULL);
        total = read_next(arriving, fd);
        size = total - (arriving->length - arriving->come); /* what follows it */
    }
    if (total <= 0) {
        Py_DECREF(messages);
        Py_DECREF(now);
        if (total != -2) return nothing_read(self, total);
        SET(P(arriving), Py_None); /* there is no memory for it: the connection is cut */
        return NULL;
    }
    set(&C(_heard), now);
    if (arriving != NULL) {
        const Py_ssize_t own = size < 0 ? total : total - size;
        if (!unmask_next(arriving, place_of(arriving) + arriving->come, own)) {
            unmask_next(arriving, place_of(arriving) + arriving->come, own); /* as it was */
            result = read_on(self, protocol, arriving, messages, total);
            Py_DECREF(messages);
            return result;
        }
        arriving->come += own;
        if (size < 0) { /* there is more to come */
            Py_DECREF(messages);
            if (add(&C(bytes_in), total)) return NULL;
            Py_RETURN_NONE;
        }
        if (PyList_Append(messages, arriving->message)) {
            Py_DECREF(messages);
            return NULL;
        }
        begun = arriving->length;
        SET(P(arriving), Py_None); /* frees it */
    }
    read_buffer_is_used = 1;
    if (take((const unsigned char *)read_buffer, &position, size, largest, most, messages, P(accepts)))
        PyErr_Clear(); /* to fail again */
    if (position < size && PyList_GET_SIZE(messages) < most)
        began = begin_arriving(protocol, (const unsigned char *)read_buffer + position, size - position, largest);
    if (began < 0) PyErr_Clear(); /* as above */
    if (position == size || began > 0) {
        read_buffer_is_used = 0;
        if (PyList_GET_SIZE(messages) == 0 ? add(&C(bytes_in), total) : deliver(self, messages, total, begun)) result = NULL;
        else result = Py_NewRef(Py_None);
    } else {
        PyObject *rest = PyBytes_FromStringAndSize(read_buffer + position, size - position);
        read_buffer_is_used = 0;
        if (rest != NULL) result = leave_rest(self, protocol, messages, rest, most, total, begun);
        Py_XDECREF(rest);
    }
    Py_DECREF(messages);
    return result;
}

/* A listener */

static PyObject *dispatch(PyObject *self, PyObject *events) {
    PyObject *connections;
    if (!PyList_CheckExact(events)) {
        PyErr_SetString(PyExc_TypeError, "events is a list");
        return NULL;
    }
    connections = PyObject_GetAttr(self, name_connections);
    if (connections == NULL) return NULL;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(events); i++) {
        PyObject *event = Py_NewRef(PyList_GET_ITEM(events, i)), *connection = NULL, *result, *arguments[3] = {self};
        if (!PyTuple_CheckExact(event) || PyTuple_GET_SIZE(event) != 2) {
            PyErr_SetString(PyExc_TypeError, "an event is (fd, event)");
            result = NULL;
        } else if (PyLong_AsLong(PyTuple_GET_ITEM(event, 1)) == readable && PyDict_CheckExact(connections) &&
                   (connection = PyDict_GetItemWithError(connections, PyTuple_GET_ITEM(event, 0))) != NULL &&
                   Py_TYPE(connection) == connection_type) {
            Py_INCREF(connection);
            result = receive(connection, NULL, 0, NULL);
            if (result == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
                arguments[1] = connection;
                arguments[2] = raised();
                result = PyObject_VectorcallMethod(name_cut, arguments, 3, NULL);
                Py_DECREF(arguments[2]);
            }
            Py_DECREF(connection);
        } else if (PyErr_Occurred()) {
            result = NULL;
        } else {
            arguments[1] = PyList_New(1);
            result = NULL;
            if (arguments[1] != NULL) {
                PyList_SET_ITEM(arguments[1], 0, Py_NewRef(event));
                result = PyObject_Vectorcall(slow_dispatch, arguments, 2, NULL);
                Py_DECREF(arguments[1]);
            }
        }
        Py_DECREF(event);
        if (discard(result)) {
            Py_DECREF(connections);
            return NULL;
        }
    }
    Py_DECREF(connections);
    Py_RETURN_NONE;
}

/* Keep what the socket did not take; the listener sends it when the socket does. */
static int keep(PyObject *self, PyObject *rest) {
    if (rest == NULL) return -1;
    set(&C(_outgoing), rest); /* before any Python runs, so that nobody sends in between */
    return discard(PyObject_CallMethodNoArgs(self, name_watch_outgoing));
}

/* Send a frame, in two parts if `payload` is not NULL; 1 if nothing was sent. */
static int write_frame(PyObject *self, const char *head, Py_ssize_t head_size, const char *payload, Py_ssize_t size) {
    struct iovec parts[2] = {{(void *)head, head_size}, {(void *)payload, size}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    Py_ssize_t sent, total = head_size + size;
    PyObject *rest = NULL;
    int fd = PyLong_AsInt(C(fd));
    if (fd == -1) {
        PyErr_Clear();
        return 1;
    }
    if (size == 0) sent = send(fd, head, head_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    else sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent <= 0) return 1;
    if (add(&C(bytes_out), total)) return -1; /* before `keep` runs Python, in which others can add to it */
    if (sent < total) {
        rest = PyByteArray_FromStringAndSize(NULL, total - sent);
        if (rest != NULL) {
            char *to = PyByteArray_AS_STRING(rest);
            Py_ssize_t of_head = sent < head_size ? head_size - sent : 0;
            memcpy(to, head + head_size - of_head, of_head);
            if (total - sent > of_head) memcpy(to + of_head, payload + size - (total - sent - of_head), total - sent - of_head);
        }
        return keep(self, rest);
    }
    return 0;
}

static int send_corked(PyObject *self) {
    PyObject *corked = C(_corked), *protocol = C(_protocol), *set_of_corked;
    int failed;
    if (corked == Py_None) return 0;
    if (P(state) != open_state || C(_outgoing) != Py_None || !PyByteArray_CheckExact(corked) || !lock_is_free(self))
        return discard(PyObject_CallMethodNoArgs(self, name_flush_corked));
    set_of_corked = PyObject_GetAttr(C(_listener), name_corked);
    if (set_of_corked == NULL) return -1;
    failed = PySet_Discard(set_of_corked, self) < 0;
    Py_DECREF(set_of_corked);
    if (failed) return -1;
    Py_INCREF(corked);
    if (PyByteArray_GET_SIZE(corked) == 0) {
        SET(C(_corked), Py_None);
    } else {
        SET(C(_corked), Py_None);
        failed = write_frame(self, PyByteArray_AS_STRING(corked), PyByteArray_GET_SIZE(corked), NULL, 0);
        if (failed > 0) { /* Python finds out why */
            SET(C(_corked), corked);
            failed = discard(PyObject_CallMethodNoArgs(self, name_flush_corked));
        }
    }
    Py_DECREF(corked);
    return failed;
}

/* Send a message where that is ordinary; 1 if it is not, and then nothing has happened. */
static int send_message(PyObject *self, PyObject *message) {
    PyObject *protocol = C(_protocol), *corked = C(_corked), *encoded = NULL;
    char frame[10 + COPIED];
    const char *payload;
    Py_ssize_t size, head_size = 2;
    int failed;
    if (protocol == NULL || Py_TYPE(protocol) != protocol_type || P(state) != open_state || P(deflate) != Py_None ||
        C(_outgoing) != Py_None || corked == NULL)
        return 1;
    if (PyUnicode_CheckExact(message)) {
        frame[0] = (char)FINAL_TEXT;
        if (PyUnicode_IS_COMPACT_ASCII(message)) {
            payload = (const char *)PyUnicode_1BYTE_DATA(message);
            size = PyUnicode_GET_LENGTH(message);
        } else {
            encoded = PyUnicode_AsUTF8String(message);
            if (encoded == NULL) { /* a surrogate: to fail again */
                PyErr_Clear();
                return 1;
            }
            payload = PyBytes_AS_STRING(encoded);
            size = PyBytes_GET_SIZE(encoded);
        }
    } else if (PyBytes_CheckExact(message)) {
        frame[0] = (char)FINAL_BINARY;
        payload = PyBytes_AS_STRING(message);
        size = PyBytes_GET_SIZE(message);
    } else {
        return 1;
    }
    failed = 1;
    if (!lock_is_free(self)) goto done;
    if (size < 126) {
        frame[1] = (char)size;
    } else if (size < 65536) {
        frame[1] = 126;
        frame[2] = (char)(size >> 8);
        frame[3] = (char)size;
        head_size = 4;
    } else {
        frame[1] = 127;
        for (int i = 0; i < 8; i++) frame[2 + i] = (char)((uint64_t)size >> (56 - 8 * i));
        head_size = 10;
    }
    if (corked != Py_None) {
        Py_ssize_t before;
        if (!PyByteArray_CheckExact(corked)) goto done;
        before = PyByteArray_GET_SIZE(corked);
        failed = -1;
        if (PyByteArray_Resize(corked, before + head_size + size)) goto done;
        memcpy(PyByteArray_AS_STRING(corked) + before, frame, head_size);
        memcpy(PyByteArray_AS_STRING(corked) + before + head_size, payload, size);
        failed = before + head_size + size >= corked_size ? send_corked(self) : 0;
    } else if (size <= COPIED) {
        memcpy(frame + head_size, payload, size);
        failed = write_frame(self, frame, head_size + size, NULL, 0);
    } else {
        failed = write_frame(self, frame, head_size, payload, size);
    }
    if (failed == 0) failed = add(&C(messages_out), 1);
done:
    Py_XDECREF(encoded);
    return failed;
}

static PyObject *connection_send(PyObject *self, PyObject *message) {
    int failed = send_message(self, message);
    if (failed > 0) return in_python(slow_send, self, &message, 1, NULL);
    if (failed < 0) return NULL;
    Py_RETURN_NONE;
}

static PyObject *websocket_send(PyObject *self, PyObject *message) {
    PyObject *connection = AT(self, in_websocket._connection);
    int failed = 1;
    if (connection != NULL && Py_TYPE(connection) == connection_type) {
        Py_INCREF(connection);
        failed = send_message(connection, message);
        Py_DECREF(connection);
    }
    if (failed > 0) return in_python(slow_websocket_send, self, &message, 1, NULL);
    if (failed < 0) return NULL;
    Py_RETURN_NONE;
}

static double monotonic(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + time.tv_nsec * 1e-9;
}

/* Connection.send_shared, where that is ordinary; 1 if it is not, and then nothing has happened. */
static int send_shared(PyObject *self, PyObject *frame) {
    PyObject *protocol;
    int failed;
    if (Py_TYPE(self) != connection_type) return 1;
    protocol = C(_protocol);
    if (protocol == NULL || Py_TYPE(protocol) != protocol_type || P(state) != open_state || C(_outgoing) != Py_None ||
        C(_corked) != Py_None || !lock_is_free(self))
        return 1;
    failed = write_frame(self, PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame), NULL, 0);
    return failed ? failed : add(&C(messages_out), 1);
}

/* Have the processor fetch what `send_shared` will look at: of a thousand members nothing is in its caches, and to wait
   for it takes as long as all else here. First the connection, and a member later what that refers to. */
ALWAYS_INLINE void fetch(PyObject *self) {
    PREFETCH(self);
    PREFETCH(&C(_corked)); /* the first of those slots, one in the middle, and the last */
    PREFETCH(&C(_protocol));
    PREFETCH(&C(messages_out));
}

ALWAYS_INLINE void fetch_more(PyObject *self) {
    PyObject *protocol;
    if (Py_TYPE(self) != connection_type || (protocol = C(_protocol)) == NULL) return;
    PREFETCH(protocol);
    PREFETCH(&P(state));
    PREFETCH(C(_lock));
    PREFETCH(C(fd));
    PREFETCH(C(bytes_out));
    PREFETCH(C(messages_out));
}

/* As uwasp.fanout.send_to_all. */
static PyObject *send_to_all(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    PyObject *frame, *members, *following, *member;
    Py_ssize_t next, left;
    double deadline;
    if (count != 5 || !PyBytes_CheckExact(args[0]) || !PyTuple_CheckExact(args[1]) || !PyIter_Check(args[2])) {
        PyErr_SetString(PyExc_TypeError, "send_to_all(frame: bytes, members: tuple, following: Iterator, "
                                         "deadline: float, cut: Callable)");
        return NULL;
    }
    frame = args[0];
    members = args[1];
    following = args[2];
    deadline = PyFloat_AsDouble(args[3]);
    if (deadline == -1 && PyErr_Occurred()) return NULL;
    left = PyObject_LengthHint(following, 0);
    if (left < 0) return NULL;
    next = left <= PyTuple_GET_SIZE(members) ? PyTuple_GET_SIZE(members) - left : PyTuple_GET_SIZE(members);
    while ((member = PyIter_Next(following)) != NULL) {
        int failed;
        next++;
        if (next + 1 < PyTuple_GET_SIZE(members)) fetch(PyTuple_GET_ITEM(members, next + 1));
        if (next < PyTuple_GET_SIZE(members)) fetch_more(PyTuple_GET_ITEM(members, next));
        failed = send_shared(member, frame);
        if (failed > 0) failed = discard(PyObject_CallMethodOneArg(member, name_send_shared, frame));
        if (failed && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyObject *arguments[2] = {member, raised()};
            failed = discard(PyObject_Vectorcall(args[4], arguments, 2, NULL));
            Py_DECREF(arguments[1]);
        }
        Py_DECREF(member);
        if (failed) return NULL;
        if (monotonic() >= deadline) Py_RETURN_FALSE;
    }
    if (PyErr_Occurred()) return NULL;
    Py_RETURN_TRUE;
}

/* Delivering */

static int begin_to_cork(PyObject *self, double since) {
    PyObject *empty = PyByteArray_FromStringAndSize(NULL, 0), *time = PyFloat_FromDouble(since);
    if (empty == NULL || time == NULL) {
        Py_XDECREF(empty);
        Py_XDECREF(time);
        return -1;
    }
    set(&C(corked_since), time);
    set(&C(_corked), empty);
    return discard(PyObject_CallMethodOneArg(C(_listener), name_cork, self));
}

static int is_message(PyObject *event) { return PyUnicode_CheckExact(event) || PyBytes_CheckExact(event); }

/* Give events to the server: Connection._consume_several, and the call in `consume` for a single message. `*seen` is how
   many it was given, all of them unless the slice is over or it raised (-1). The list becomes shorter if the server
   closes. */
static int run(PyObject *self, PyObject *server, PyObject *messages, double *slice_ends, Py_ssize_t *seen) {
    double before = 0, now, since = 0;
    int several = PyList_GET_SIZE(messages) > 1 || !is_message(PyList_GET_ITEM(messages, 0));
    if (several) {
        before = monotonic();
        if (*slice_ends <= 0) *slice_ends = before + slice;
    }
    while (*seen < PyList_GET_SIZE(messages)) {
        PyObject *message, *result;
        if (several && C(_corked) == Py_None && C(_is_fast) == Py_True && C(_may_cork) == Py_True) {
            since = before;
            if (begin_to_cork(self, since)) return -1;
            if (*seen >= PyList_GET_SIZE(messages)) break; /* in there, another thread had its turn, and has closed */
        }
        message = Py_NewRef(PyList_GET_ITEM(messages, *seen));
        *seen += 1;
        if (is_message(message))
            result = PyObject_CallMethodOneArg(server, name_on_message, message);
        else
            result = PyObject_CallMethodOneArg(message, name_tell, server);
        Py_DECREF(message);
        if (result == NULL) return -1;
        Py_DECREF(result);
        if (several) {
            now = monotonic();
            SET(C(_is_fast), now - before < corked_time ? Py_True : Py_False);
            if (C(_corked) != Py_None && now - since >= corked_time && send_corked(self)) return -1;
            if (now >= *slice_ends) break;
            before = now;
        }
    }
    return 0;
}

/* Go on after an exception, unless it is for whoever consumes; that is the one in `*foreign` then. */
static int recover(PyObject *self, PyObject **foreign) {
    PyObject *error = raised(), *result = PyObject_CallMethodOneArg(self, name_failed, error);
    Py_DECREF(error);
    if (result == NULL) return -1;
    if (result == Py_None) Py_DECREF(result);
    else Py_XSETREF(*foreign, result);
    return 0;
}

static int put_back(PyObject *self, PyObject *messages, Py_ssize_t seen) {
    PyObject *rest = PyList_GetSlice(messages, seen, PyList_GET_SIZE(messages));
    int failed = rest == NULL ? -1 : discard(PyObject_CallMethodOneArg(self, name_put_back, rest));
    Py_XDECREF(rest);
    return failed;
}

/* Whether nothing but messages waits in the inbox, and others, that were left unread, may come there instead. */
static int may_read_on(PyObject *self, PyObject *protocol) {
    return PyTuple_CheckExact(P(unread)) && PyBytes_CheckExact(PyTuple_GET_ITEM(P(unread), 0)) &&
           is_between_frames(protocol) && C(_is_crowded) == Py_False &&
           C(_busy) == Py_True && C(_told) == zero && PyList_CheckExact(C(_inbox)) &&
           PyList_GET_SIZE(C(_inbox)) > 0 && lock_is_free(self);
}

/* Incoming.take where the inbox was filled by what was read. NULL without an exception: nothing has happened, because the
   Python is to look at what was left unread. */
static PyObject *take_and_read_on(PyObject *self, PyObject *protocol) {
    PyObject *unread = Py_NewRef(P(unread)), *data = PyTuple_GET_ITEM(unread, 0), *found = PyList_New(0);
    PyObject *left = NULL, *queued = NULL, *messages = NULL;
    const Py_ssize_t largest = PyLong_AsSsize_t(P(max_message_size)), most = PyLong_AsSsize_t(P(max_messages));
    Py_ssize_t position = PyLong_AsSsize_t(PyTuple_GET_ITEM(unread, 1)), end = PyBytes_GET_SIZE(data), count, size = 0;
    if (found == NULL || PyErr_Occurred()) goto done;
    if (take((const unsigned char *)PyBytes_AS_STRING(data), &position, end, largest, most, found, P(accepts))) {
        PyErr_Clear(); /* to fail again */
        goto done;
    }
    count = PyList_GET_SIZE(found);
    if (count == 0 || (position < end && count < most)) goto done;
    for (Py_ssize_t i = 0; i < count; i++) size += PyObject_Size(PyList_GET_ITEM(found, i));
    left = position < end ? Py_BuildValue("(On)", data, position) : Py_NewRef(Py_None);
    queued = left ? PyLong_FromSsize_t(size) : NULL;
    /* Again: to make these may have collected garbage, and so run anything. */
    if (queued == NULL || P(unread) != unread || !may_read_on(self, protocol) || add(&C(messages_in), count)) goto done;
    messages = C(_inbox); /* the reference is ours now */
    C(_inbox) = Py_NewRef(found);
    SET(C(_queued), queued);
    SET(P(unread), left);
    SET(C(_batch), messages);
    if (left == Py_None && C(_paused) != Py_False && discard(PyObject_CallMethodNoArgs(self, name_hear_again)))
        Py_CLEAR(messages);
done:
    Py_DECREF(unread);
    Py_XDECREF(found);
    Py_XDECREF(left);
    Py_XDECREF(queued);
    return messages;
}

/* Incoming.take, in the ordinary case here; NULL for an exception, None for the end, an empty list for nothing. */
static PyObject *take_batch(PyObject *self) {
    PyObject *messages, *protocol = C(_protocol);
    if (protocol == NULL || Py_TYPE(protocol) != protocol_type) return in_python(slow_take, self, NULL, 0, NULL);
    if (P(unread) != Py_None) {
        messages = may_read_on(self, protocol) ? take_and_read_on(self, protocol) : NULL;
        return messages != NULL || PyErr_Occurred() ? messages : in_python(slow_take, self, NULL, 0, NULL);
    }
    if (C(_paused) != Py_False || !lock_is_free(self)) return in_python(slow_take, self, NULL, 0, NULL);
    messages = C(_inbox);
    if (messages != Py_None && PyList_CheckExact(messages) && PyList_GET_SIZE(messages) > 0) {
        C(_inbox) = Py_NewRef(Py_None); /* the reference is ours now */
        SET(C(_queued), zero);
        if (C(_told) != zero) SET(C(_told), zero);
        SET(C(_batch), messages);
        return messages;
    }
    if (P(state) != open_state) return in_python(slow_take, self, NULL, 0, NULL);
    SET(C(_batch), Py_None);
    SET(C(_busy), Py_False);
    return NULL;
}

/* Incoming.take, for a consumer that goes through the steps itself. */
static PyObject *connection_take(PyObject *self, PyObject *unused) {
    PyObject *messages;
    (void)unused;
    if (C(_told) != zero || (C(_inbox) != Py_None && C(_batch) != Py_None)) /* to be told; or it may be others' turn */
        return in_python(slow_take, self, NULL, 0, NULL);
    messages = take_batch(self);
    return messages == NULL && !PyErr_Occurred() ? PyList_New(0) : messages;
}

static int give_way(PyObject *self) {
    PyObject *ready = PyObject_GetAttr(C(_listener), name_ready);
    int failed = ready == NULL ? -1 : discard(PyObject_CallMethodOneArg(ready, name_append, self));
    Py_XDECREF(ready);
    return failed;
}

static PyObject *consume(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *server = C(server), *foreign = NULL, *messages;
    double slice_ends = 0; /* as Incoming._slice_ends; -1: it is not the first batch, and nobody has looked */
    int cork = 0, failed = 0, slice_is_over = 0;
    if (count + (names ? PyTuple_GET_SIZE(names) : 0) == 1) {
        cork = PyObject_IsTrue(args[0]);
        if (cork < 0) return NULL;
    }
    if (C(_opened_at) == Py_None || C(conversation) != Py_None || server == NULL || server == Py_None || C(_listener) == NULL ||
        (names && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "cork")))
        return in_python(slow_consume, self, args, count, names);
    Py_INCREF(server);
    SET(C(_may_cork), cork ? Py_True : Py_False);
    SET(C(_slice_ends), zero);
    for (;;) {
        Py_ssize_t seen = 0;
        if (slice_ends != 0 && C(_inbox) != Py_None) {
            double now = monotonic();
            if (slice_ends < 0) slice_ends = now + slice;
            else if (now >= slice_ends) {
                SET(C(_batch), Py_None);
                failed = give_way(self);
                slice_is_over = 1;
                break;
            }
        }
        messages = take_batch(self);
        if (messages == NULL) {
            failed = PyErr_Occurred() ? -1 : 0;
            break;
        }
        if (messages == Py_None) {
            PyObject *error = PyObject_CallMethodOneArg(self, name_consume_end, server);
            Py_DECREF(messages);
            if (error == NULL) failed = -1;
            else if (error == Py_None) Py_DECREF(error);
            else Py_XSETREF(foreign, error);
            break;
        }
        if (!PyList_CheckExact(messages) || PyList_GET_SIZE(messages) == 0) {
            slice_is_over = messages == over;
            Py_DECREF(messages);
            break;
        }
        if (slice_ends == 0) slice_ends = -1;
        if (run(self, server, messages, &slice_ends, &seen)) failed = recover(self, &foreign);
        if (!failed && C(_corked) != Py_None && send_corked(self)) failed = recover(self, &foreign);
        if (!failed && seen < PyList_GET_SIZE(messages)) failed = put_back(self, messages, seen);
        Py_DECREF(messages);
        if (failed) break;
    }
    Py_DECREF(server);
    if (failed || foreign != NULL) {
        if (!failed) PyErr_SetObject((PyObject *)Py_TYPE(foreign), foreign);
        Py_XDECREF(foreign);
        return NULL;
    }
    return PyBool_FromLong(slice_is_over);
}

/* Putting all of it in */

static PyMethodDef methods_of_connection[] = {
    {"receive", (PyCFunction)(void (*)(void))receive, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"consume", (PyCFunction)(void (*)(void))consume, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"send", connection_send, METH_O, NULL},
    {"take", connection_take, METH_NOARGS, NULL},
};
static PyMethodDef methods_of_websocket[] = {{"send", websocket_send, METH_O, NULL}};
static PyMethodDef methods_of_listener[] = {{"_dispatch", dispatch, METH_O, NULL}};

/* Find where the slots of a class are. */
static int locate(PyObject *type, const char *const *names, void *offsets) {
    Py_ssize_t *offset = offsets;
    for (; *names; names++, offset++) {
        PyObject *member = PyObject_GetAttrString(type, *names);
        if (member == NULL) return -1;
        if (Py_TYPE(member) != &PyMemberDescr_Type) {
            PyErr_Format(PyExc_TypeError, "%R has no slot %s", type, *names);
            Py_DECREF(member);
            return -1;
        }
        *offset = ((PyMemberDescrObject *)member)->d_member->offset;
        Py_DECREF(member);
    }
    return 0;
}

static PyObject *replace(PyTypeObject *type, PyMethodDef *method) {
    PyObject *before = PyObject_GetAttrString((PyObject *)type, method->ml_name), *descriptor, *doc;
    if (before == NULL) return NULL;
    doc = PyObject_GetAttrString(before, "__doc__");
    if (doc != NULL && PyUnicode_Check(doc)) method->ml_doc = PyUnicode_AsUTF8(doc); /* lives as long as `before` */
    Py_XDECREF(doc);
    descriptor = PyDescr_NewMethod(type, method);
    if (descriptor == NULL || PyObject_SetAttrString((PyObject *)type, method->ml_name, descriptor)) {
        Py_XDECREF(descriptor);
        Py_DECREF(before);
        return NULL;
    }
    Py_DECREF(descriptor);
    return before;
}

static PyObject *accelerate(PyObject *module, PyObject *arguments) {
    PyObject *protocol, *connection, *websocket, *listener;
    if (!PyArg_ParseTuple(arguments, "O!O!O!O!OlO!ddnn:accelerate", &PyType_Type, &protocol, &PyType_Type, &connection,
                          &PyType_Type, &websocket, &PyType_Type, &listener, &open_state, &readable, &PyList_Type, &over, &slice,
                          &corked_time, &corked_size, &read_size))
        return NULL;
    if (connection_type != NULL) Py_RETURN_NONE; /* it is done */
    if (locate(protocol, protocol_slots, &in_protocol) || locate(connection, connection_slots, &in_connection) ||
        locate(websocket, websocket_slots, &in_websocket))
        return NULL;
    read_buffer = PyMem_RawMalloc(read_size);
    if (read_buffer == NULL) return PyErr_NoMemory();
    zero = PyLong_FromLong(0);
    if (zero == NULL) return NULL;
    Py_INCREF(open_state);
    Py_INCREF(over);
    protocol_type = (PyTypeObject *)Py_NewRef(protocol);
    connection_type = (PyTypeObject *)Py_NewRef(connection);
    websocket_type = (PyTypeObject *)Py_NewRef(websocket);
    slow_receive = replace(connection_type, &methods_of_connection[0]);
    slow_consume = slow_receive ? replace(connection_type, &methods_of_connection[1]) : NULL;
    slow_send = slow_consume ? replace(connection_type, &methods_of_connection[2]) : NULL;
    slow_take = slow_send ? replace(connection_type, &methods_of_connection[3]) : NULL;
    slow_websocket_send = slow_take ? replace(websocket_type, &methods_of_websocket[0]) : NULL;
    slow_dispatch = slow_websocket_send ? replace((PyTypeObject *)listener, &methods_of_listener[0]) : NULL;
    if (slow_dispatch == NULL) return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"accelerate", accelerate, METH_VARARGS, "Put the methods of this module into the classes of uwasp-core."},
    {"send_to_all", (PyCFunction)(void (*)(void))send_to_all, METH_FASTCALL, "As uwasp.fanout.send_to_all."},
    {"take_messages", (PyCFunction)(void (*)(void))take_messages, METH_FASTCALL, "As uwasp.protocol.take_messages."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_speedups", NULL, -1, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__speedups(void) {
    struct { PyObject **name; const char *value; } names[] = {
        {&name_append, "append"},
        {&name_broken, "_broken"},
        {&name_connections, "_connections"},
        {&name_consume_end, "_consume_end"},
        {&name_cork, "cork"},
        {&name_corked, "corked"},
        {&name_cut, "_cut"},
        {&name_failed, "_failed"},
        {&name_flush_corked, "flush_corked"},
        {&name_hear_again, "_hear_again"},
        {&name_max_queue_size, "max_queue_size"},
        {&name_now, "now"},
        {&name_on_message, "on_message"},
        {&name_put_back, "put_back"},
        {&name_read_on, "_read_on"},
        {&name_ready, "ready"},
        {&name_send_shared, "send_shared"},
        {&name_take_back, "take_back"},
        {&name_tell, "tell"},
        {&name_watch_outgoing, "_watch_outgoing"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((*names[i].name = PyUnicode_InternFromString(names[i].value)) == NULL) return NULL;
    return PyModule_Create(&definition);
}
