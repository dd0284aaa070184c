# cython: language_level=3, boundscheck=False, wraparound=False
"""The hub's inner loop, compiled: from a readable publisher to every plain peer at the head.

Receives behind the head, passes over the sound messages, sends them to all that ride, moves the
head. What is not plain (a message that is not sound, a large one that comes in pieces, a peer that
takes less than all) it hands to Python, once the log is in order. Who rides is all that it keeps from
one call to the next, but for what it has at hand of the log, the rules and the counters.
"""

from array import array

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EPIPE, errno
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from alphapulse_relay.hub.syscalls cimport (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    ESHUTDOWN,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    POLLOUT,
    c_recv,
    c_send,
    clock_gettime,
    epoll_event,
    epoll_wait,
    pollfd,
    ppoll,
    timespec,
)
from alphapulse_relay.journal.index cimport index_append, index_place
from alphapulse_relay.protocol_v2.scan cimport (
    crc32_choose,
    scan_count,
    scan_counters,
    scan_histogram,
    scan_may_begin,
    scan_observe,
    scan_rules,
    scan_skim,
)


cdef enum:
    GRACE = 200_000  # nanoseconds that full sockets are waited for in a flood: see send_to_all


cdef struct Call:
    # What one call of FanOut.receive does, until Python is told.
    int descriptor
    int reactor  # its epoll descriptor; -1 not to wait
    int64_t deadline  # until when at most: CLOCK_MONOTONIC, nanoseconds
    int64_t work  # bytes that may still be received and sent
    int64_t span  # bytes that may be appended until pace has to be looked at; 0 or less: a chunk
    size_t done  # bytes behind the head that were sent on
    size_t last  # of these, where the last run begins
    size_t torn  # bytes behind these: the beginning of a message, or what is not sound
    size_t reached  # how many riders took all of the last run
    size_t messages  # in what was sent on
    index_place index  # where the next record goes
    uint64_t position, ordinal  # of what comes next
    uint64_t origin
    int64_t received_at  # CLOCK_MONOTONIC, nanoseconds
    bint empty  # whether the socket is
    bint odd  # whether the torn bytes are for Python


cdef struct Late:
    # A rider that did not take all of a run.
    size_t seat
    size_t sent  # how much it took
    bint gone  # whether it will never read again


crc32_choose()


cdef inline int64_t nanoseconds(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef inline void send_more(Late *late, int descriptor, const uint8_t *run, size_t size) noexcept nogil:
    """Send what a rider has not taken of a run, and note how that went."""
    cdef ssize_t sent = c_send(
        descriptor, run + late.sent, size - late.sent, MSG_DONTWAIT | MSG_NOSIGNAL
    )
    if sent >= 0:
        late.sent += sent
    else:
        # Whatever else fails passes: the socket is full, or the kernel is short of memory.
        late.gone = errno == EPIPE or errno == ECONNRESET


cdef void *memory_of(owner, size_t *size) except NULL:
    """Return where an object's memory lies: good as long as it is not resized."""
    cdef Py_buffer view
    PyObject_GetBuffer(owner, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    size[0] = view.len
    memory = view.buf
    PyBuffer_Release(&view)
    return memory


cdef class FanOut:
    """Those that ride at the head of the log, and the way of bytes to all of them.

    ``receive_size`` is asked of a socket at once, ``gather_size`` is from where a torn message is
    gathered by Python, both in bytes. ``pace`` says where it has to be looked at again.
    ``forwarded(sender, length, messages, reached, received_at)`` is told what was appended and how
    many took all of it; ``fell_behind(peer, position, gone)`` that a peer rides no longer, since it
    took only what lies before the position, and whether it will never read again.
    """

    cdef public bint chunkwise
    """Whether Python is to be told after each chunk: some peers do not ride, say."""
    cdef object log, pace, segment, forwarded, fell_behind, loaded
    cdef scan_rules rules
    cdef scan_counters counters
    cdef scan_histogram forward
    cdef list arrays
    cdef uint8_t *buffer
    cdef uint8_t *index
    cdef size_t buffer_size
    cdef size_t receive_size, gather_size
    cdef list riders
    # By seat, with room for as many: descriptors. And those that were late with the last run.
    cdef int *descriptors
    cdef Late *late
    cdef pollfd *waited
    cdef size_t capacity, late_count

    def __cinit__(
        self, log, rules, pace, counters, forwarded, fell_behind, *,
        size_t receive_size, size_t gather_size,
    ):
        self.log, self.pace = log, pace
        self.forwarded, self.fell_behind = forwarded, fell_behind
        self.receive_size, self.gather_size = receive_size, gather_size
        self.riders = []
        self.load(rules)
        self.arrays = []
        self.counters.types = <uint64_t *>self.array_memory(counters.types)
        self.counters.malformed = <uint64_t *>self.array_memory(counters.malformed)
        self.counters.sources = <uint64_t *>self.array_memory(counters.sources)
        self.counters.sequences = <uint64_t *>self.array_memory(counters.sequences)
        self.counters.missing = <uint64_t *>self.array_memory(counters.sequences_missing)
        self.counters.repeated = <uint64_t *>self.array_memory(counters.sequences_repeated)
        self.fill_histogram(&self.counters.age, counters.age)
        self.fill_histogram(&self.forward, counters.forward)

    cdef int load(self, rules) except -1:
        """Accept by these rules from now on: publishers may have rules of their own."""
        level, max_payload, domains, tlv_types, sources = rules.masks
        self.rules.level = level
        self.rules.max_payload = max_payload
        memcpy(self.rules.domains, <const uint8_t *>domains, 256)
        memcpy(self.rules.tlv_types, <const uint8_t *>tlv_types, 256)
        memcpy(self.rules.sources, <const uint8_t *>sources, 256)
        self.loaded = rules
        return 0

    cdef int fill_histogram(self, scan_histogram *histogram, source) except -1:
        histogram.bounds = <const double *>self.array_memory(array("d", source.bounds))
        histogram.bound_count = len(source.bounds)
        histogram.counts = <uint64_t *>self.array_memory(source.counts)
        histogram.sum = <double *>self.array_memory(source.sum)
        return 0

    cdef void *array_memory(self, counts) except NULL:
        """Return an array's memory, and keep the array from being resized."""
        cdef size_t size
        self.arrays.append(memoryview(counts))
        return memory_of(counts, &size)

    def __dealloc__(self):
        free(self.descriptors)
        free(self.late)
        free(self.waited)

    def add(self, peer, int descriptor):
        """Let a peer that is at the head ride: from now on it gets what is appended."""
        cdef size_t seat = len(self.riders)
        if seat == self.capacity:
            self.make_seats(2 * self.capacity + 64)
        self.descriptors[seat] = descriptor
        self.riders.append(peer)
        peer.seat = seat

    cdef int make_seats(self, size_t capacity) except -1:
        descriptors = <int *>realloc(self.descriptors, capacity * sizeof(int))
        if descriptors is not NULL:
            self.descriptors = descriptors
        late = <Late *>realloc(self.late, capacity * sizeof(Late))
        if late is not NULL:
            self.late = late
        waited = <pollfd *>realloc(self.waited, capacity * sizeof(pollfd))
        if waited is not NULL:
            self.waited = waited
        if descriptors is NULL or late is NULL or waited is NULL:
            raise MemoryError
        self.capacity = capacity
        return 0

    def remove(self, peer):
        """Let a peer ride no longer."""
        cdef size_t seat = peer.seat, last = len(self.riders) - 1
        moved = self.riders.pop()
        if seat != last:
            self.riders[seat] = moved
            self.descriptors[seat] = self.descriptors[last]
            moved.seat = seat
        peer.seat = None

    def count(self, run, int64_t now):
        """Count a run of accepted messages, as ``Counters.count``."""
        cdef Py_buffer view
        PyObject_GetBuffer(run, &view, PyBUF_SIMPLE)
        scan_count(<const uint8_t *>view.buf, view.len, now, &self.counters)
        PyBuffer_Release(&view)

    def send(self, run, sender):
        """Send a run that was just appended to all riders but the sender.

        Returns how many took all of it.
        """
        cdef Py_buffer view
        cdef Py_ssize_t seat = self.seat_of(sender)
        PyObject_GetBuffer(run, &view, PyBUF_SIMPLE)
        try:
            reached = self.send_to_all(<const uint8_t *>view.buf, view.len, seat, False)
        finally:
            PyBuffer_Release(&view)
        self.hand_over_late(self.log.head - len(run))
        return reached

    def receive(self, peer, int descriptor, int64_t work, int reactor=-1, int64_t wait=0):
        """Receive from a peer and send to all riders, until its socket is empty or for a turn.

        ``work`` bounds the bytes that are received and sent; what is left of it is returned, 0 if
        there are none to receive now. A negative number is the error that ended the connection
        (errno(3)); ESHUTDOWN stands for the end of the stream.

        ``reactor`` is an epoll descriptor, -1 for none: the turn ends once anything else happens
        there than that this socket has bytes, be it that a peer that fell behind has room again.
        While nothing happens an empty socket does not end it, for ``wait`` nanoseconds: so a
        publisher's single messages cost no way round the reactor.
        """
        cdef Call call
        cdef size_t index_size
        cdef bytes torn = peer.torn_bytes
        call.torn = PyBytes_GET_SIZE(torn)
        segment = self.log.make_room(call.torn + self.receive_size)
        if peer.ended:
            return 0  # that has given up the bytes it stood on
        if peer.rules is not self.loaded:
            self.load(peer.rules)
        if segment is not self.segment:
            self.segment = segment
            self.buffer = <uint8_t *>memory_of(segment.data, &self.buffer_size)
            self.buffer_size = segment.size
            self.index = <uint8_t *>memory_of(segment.index, &index_size)
        cdef size_t used = segment.used
        cdef uint8_t *head = self.buffer + used
        memcpy(head, PyBytes_AS_STRING(torn), call.torn)
        call.descriptor, call.reactor = descriptor, reactor
        call.deadline = nanoseconds(CLOCK_MONOTONIC) + wait
        call.work = work
        # Who may send only so much is looked at after each chunk.
        call.span = 0 if peer.limited else self.pace.next_look - self.log.head
        call.done = call.last = call.reached = call.messages = 0
        call.index.memory, call.index.epoch = self.index, segment.epoch
        call.index.records, call.index.capacity = segment.records, segment.capacity
        call.position, call.ordinal, call.origin = self.log.head, self.log.messages, peer.origin
        call.empty = call.odd = False
        cdef int failure = self.forward_all(
            &call, head, self.buffer_size - used, self.seat_of(peer)
        )
        self.settle(&call, peer, head)
        if failure:
            return -failure
        # What is for Python takes longer: then it is the others' turn.
        return 0 if call.empty or call.odd else max(call.work, 0)

    cdef Py_ssize_t seat_of(self, peer) except -2:
        return -1 if peer.seat is None else peer.seat

    cdef int forward_all(
        self, Call *call, uint8_t *head, size_t room, Py_ssize_t sender
    ) except -1:
        """Receive, check and send chunk by chunk; return the error that ends the connection."""
        cdef uint8_t *chunk
        cdef ssize_t received
        cdef size_t run, messages
        cdef int64_t width = 1 + len(self.riders)
        while (
            call.index.records < call.index.capacity
            and room - call.done >= call.torn + self.receive_size
        ):
            chunk = head + call.done
            received = c_recv(
                call.descriptor, chunk + call.torn, self.receive_size, MSG_DONTWAIT
            )
            if received <= 0:
                call.empty = True
                if received == 0:
                    return ESHUTDOWN
                return 0 if errno == EAGAIN or errno == EINTR else errno
            call.received_at = nanoseconds(CLOCK_MONOTONIC)
            call.work -= received * width
            # A socket that gave less than it was asked for is empty.
            call.empty = <size_t>received < self.receive_size
            call.torn += received
            run = scan_skim(chunk, call.torn, &self.rules, &messages)
            call.torn -= run
            if run:
                self.forward_run(call, chunk, run, messages, sender)
            call.odd = call.torn and not scan_may_begin(
                chunk + run, call.torn, &self.rules, self.gather_size
            )
            if call.odd or self.late_count or self.chunkwise:
                break
            if call.work <= 0 or <int64_t>call.done >= call.span:
                break
            if not self.comes_next(call):
                call.work = 0  # it is the others' turn
                break
        return 0

    cdef bint comes_next(self, Call *call):
        """Tell whether all that happens is that there are more bytes; wait for it if there are none.

        The reactor will be told the same when it asks: its events are level-triggered (epoll(7)).
        """
        cdef epoll_event events[2]
        cdef int ready, milliseconds = 0
        if call.reactor < 0:
            return not call.empty
        if call.empty:
            milliseconds = <int>((call.deadline - nanoseconds(CLOCK_MONOTONIC)) // 1000000)
            if milliseconds <= 0:
                return False
        with nogil:
            ready = epoll_wait(call.reactor, events, 2, milliseconds)
        return ready == 1 and events[0].data.fd == call.descriptor

    cdef int forward_run(
        self, Call *call, const uint8_t *run, size_t size, size_t messages, Py_ssize_t sender
    ) except -1:
        cdef int64_t now = nanoseconds(CLOCK_REALTIME)
        # First, so that who is killed now has told nobody what is not in the journal.
        index_append(
            &call.index, run, size, messages, call.position, now, call.origin, call.ordinal
        )
        call.position += size
        call.ordinal += messages
        call.reached = self.send_to_all(run, size, sender, not call.empty)
        if not self.chunkwise:
            scan_observe(&self.forward, (nanoseconds(CLOCK_MONOTONIC) - call.received_at) * 1e-9)
        scan_count(run, size, now, &self.counters)
        call.last = call.done
        call.done += size
        call.messages += messages
        return 0

    cdef size_t send_to_all(
        self, const uint8_t *run, size_t size, Py_ssize_t sender, bint flood
    ) noexcept:
        """Send a run to all riders but the one in the sender's seat; note who is late.

        Returns how many took all of it. In a ``flood`` those whose sockets are full are waited for
        a little, as long as it takes a reader that is at it: to be served from behind costs more.
        Not longer, or those that are behind already would wait too long for room to be used.
        """
        cdef Py_ssize_t seat, count = len(self.riders)
        cdef size_t reached = 0
        cdef Late late
        self.late_count = 0
        for seat in range(count):
            if seat == sender:
                continue
            late.seat, late.sent, late.gone = seat, 0, False
            send_more(&late, self.descriptors[seat], run, size)
            if late.sent == size:
                reached += 1
            else:
                self.late[self.late_count] = late
                self.late_count += 1
        if flood and self.late_count:
            reached += self.wait_for_late(run, size)
        return reached

    cdef size_t wait_for_late(self, const uint8_t *run, size_t size) noexcept:
        """Send the rest of a run to who reads on in time; return how many took all of it now."""
        cdef int64_t deadline = nanoseconds(CLOCK_MONOTONIC) + GRACE
        cdef size_t before = self.late_count
        cdef timespec left
        left.tv_sec = 0
        while self.watch_late():
            left.tv_nsec = max(deadline - nanoseconds(CLOCK_MONOTONIC), 0)
            if ppoll(self.waited, self.late_count, &left, NULL) <= 0:
                break
            self.send_rests(run, size)
        return before - self.late_count

    cdef bint watch_late(self) noexcept:
        """Fill in whom to wait for; return whether that is anybody."""
        cdef size_t number
        cdef bint anybody = False
        for number in range(self.late_count):
            late = self.late[number]
            # A negative descriptor is passed over (poll(2)).
            self.waited[number].fd = -1 if late.gone else self.descriptors[late.seat]
            self.waited[number].events, self.waited[number].revents = POLLOUT, 0
            anybody = anybody or not late.gone
        return anybody

    cdef void send_rests(self, const uint8_t *run, size_t size) noexcept:
        """Send more of a run to those who have room again; keep who is still late."""
        cdef size_t number, kept = 0
        cdef Late late
        for number in range(self.late_count):
            late = self.late[number]
            if self.waited[number].revents:
                send_more(&late, self.descriptors[late.seat], run, size)
            if late.sent != size:
                self.late[kept] = late
                kept += 1
        self.late_count = kept

    cdef int settle(self, Call *call, peer, const uint8_t *head) except -1:
        """Bring the log and the sender in order, then have Python do what is not plain."""
        last = self.log.head + call.last
        if call.done:
            self.log.moved(call.done, call.messages, call.index.records - self.segment.records)
        torn = PyBytes_FromStringAndSize(<const char *>head + call.done, call.torn)
        peer.torn_bytes = b"" if call.odd else torn
        if call.done:
            peer.stream_offset += call.done
            # Whatever fails at the sender: those that are late have been sent a part already.
            try:
                peer.published(call.done, call.messages)
            finally:
                self.hand_over_late(last)
            self.forwarded(peer, call.done, call.messages, call.reached, call.received_at * 1e-9)
        if call.odd:
            peer.dataReceived(torn)
        return 0

    cdef int hand_over_late(self, start) except -1:
        """Have those that took less than all of the run at ``start`` go on by their cursors."""
        late = [
            (self.riders[each.seat], start + each.sent, each.gone)
            for each in self.late[:self.late_count]
        ]
        self.late_count = 0
        for peer, _, _ in late:
            self.remove(peer)
        for peer, position, gone in late:
            self.fell_behind(peer, position, gone)
        return 0
