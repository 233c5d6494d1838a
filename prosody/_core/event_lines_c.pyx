# cython: language_level=3, auto_pickle=False, cdivision=True, wraparound=False, boundscheck=False
"""Entries of events as lines of JSON, compiled: the twin of ``event_lines_py.py``, byte by byte.

The two lines of a pair are written straight into their bytes, all pieces that a text can lend as UTF-8.
Whatever is not as usual (a number of more than 64 bits, a text with half a pair of surrogates, a time
that is none) goes the way of the twin. A key of which JSON escapes nothing is written as it is, which is
quicker than to look up what was remembered of it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.dict cimport PyDict_GetItemWithError
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.unicode cimport PyUnicode_CheckExact
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef double FARTHEST_MS = 9e15  # up to so far each whole number is a float, and no cast goes wrong
cdef enum:
    FIELDS = 7
    DIGITS = 20  # of a number of 64 bits, with its sign
    DATE_MAX = 40
    PLACES = 16  # a power of two


cdef struct Text:
    const char* at
    Py_ssize_t size


cdef struct Second:
    # The date of a second, as it stood before the milliseconds.
    long long number
    bint known
    Py_ssize_t size
    char date[DATE_MAX]


cdef struct Place:
    # What was found for a partition that is the very same object. Both are held.
    PyObject* tp
    PyObject* fields


cdef inline bint lend(object text, Text* to):
    """Point ``to`` at the text as UTF-8; whether there is such a thing."""
    if not PyUnicode_CheckExact(text):
        return False
    try:
        to.at = PyUnicode_AsUTF8AndSize(text, &to.size)
    except UnicodeEncodeError:
        return False
    return True


cdef inline char* put(char* to, const char* what, Py_ssize_t size) noexcept:
    memcpy(to, what, size)
    return to + size


cdef inline bint is_plain(Text* text) noexcept:
    """Whether JSON, not confined to ASCII, holds the text as it is."""
    cdef Py_ssize_t n
    cdef unsigned char byte
    for n in range(text.size):
        byte = <unsigned char>text.at[n]
        if byte < 0x20 or byte == c'"' or byte == c"\\":
            return False
    return True


cdef inline Py_ssize_t decimal(long long number, char* end) noexcept:
    """Write a number so that it ends before ``end``; how long it is."""
    cdef char* to = end
    cdef unsigned long long rest = <unsigned long long>number
    if number < 0:
        rest = 0 - rest
    while True:
        to -= 1
        to[0] = 48 + <char>(rest % 10)
        rest //= 10
        if not rest:
            break
    if number < 0:
        to -= 1
        to[0] = c"-"
    return end - to


cdef inline bint fits(double ms) noexcept:
    return -FARTHEST_MS < ms < FARTHEST_MS  # not so of what is no number


cdef int find_second(object parts, long long second, Second* to) except -1:
    """Have ``to`` hold the date of a second; 1 when it is longer than that."""
    cdef Text text
    to.known = False
    time = parts.time(second * 1000)
    if not lend(time, &text) or text.size < 5 or text.size > DATE_MAX:
        return 1
    to.size = text.size - 5
    memcpy(to.date, text.at, to.size)
    to.number = second
    to.known = True
    return 0


cdef inline int second_of(object parts, long long ms, Second* to) except -1:
    """Have ``to`` hold the date of the second in which ``ms`` lies; 1 when that cannot be."""
    cdef long long second = ms // 1000
    if second * 1000 > ms:
        second -= 1  # before 1970
    if to.known and to.number == second:
        return 0
    return find_second(parts, second, to)


cdef inline char* put_time(char* to, Second* second, long long ms) noexcept:
    cdef int rest = <int>(ms - second.number * 1000)
    to = put(to, second.date, second.size)
    to[0] = c"."
    to[1] = 48 + rest // 100
    to[2] = 48 + rest // 10 % 10
    to[3] = 48 + rest % 10
    to[4] = c"Z"
    return to + 5


@cython.final
@cython.internal
cdef class _Lines:
    """The lines of one call."""

    cdef object parts
    cdef dict known_keys
    cdef dict known_places
    cdef double offset_ms
    cdef list keys
    cdef list lines
    cdef Text dispatched, succeeded, consumer
    cdef object texts  # what these three are lent from
    cdef bint lent
    cdef Second began, ended
    cdef Place places[PLACES]

    def __cinit__(self, parts, double offset_ms):
        self.parts = parts
        self.known_keys, self.known_places = parts.keys, parts.places
        self.offset_ms = offset_ms
        self.keys, self.lines = [], []
        self.texts = parts.dispatched, parts.succeeded, parts.consumer
        self.lent = (
            lend(self.texts[0], &self.dispatched)
            and lend(self.texts[1], &self.succeeded)
            and lend(self.texts[2], &self.consumer)
        )

    def __dealloc__(self):
        for here in self.places:
            Py_XDECREF(here.tp)
            Py_XDECREF(here.fields)

    cdef object place(self, object tp):
        """The fields of a partition; None when nothing is to be told about it."""
        cdef Place* here = &self.places[(<size_t><PyObject*>tp >> 4) & (PLACES - 1)]
        cdef PyObject* found
        if here.tp == <PyObject*>tp:
            return <object>here.fields
        found = PyDict_GetItemWithError(self.known_places, tp)
        if found == NULL or not <object>found:
            return self.parts.place(tp)
        Py_INCREF(tp)
        Py_INCREF(<object>found)
        Py_XDECREF(here.tp)
        Py_XDECREF(here.fields)
        here.tp, here.fields = <PyObject*>tp, found
        return <object>found

    cdef int pair(
        self, object head, object at, object tp, object number, object key, object more
    ) except -1:
        """The two lines of an attempt that ended well."""
        cdef Text place, field, fields
        cdef bint plain
        cdef PyObject* found
        cdef double began_ms, ended_ms
        cdef long long whole
        cdef int overflow = 0
        cdef Py_ssize_t digits, size
        cdef char number_text[DIGITS]
        cdef char* to
        cdef const char* rest
        place_text = self.place(tp)
        if place_text is None:
            return 0
        plain = lend(key, &field) and is_plain(&field)
        if plain:
            key_bytes = PyBytes_FromStringAndSize(field.at, field.size)
        else:
            found = PyDict_GetItemWithError(self.known_keys, key)
            known = self.parts.key(key) if found == NULL else <object>found
            field_text, key_bytes = <tuple?>known
        if not (
            self.lent
            and PyLong_CheckExact(number)
            and PyFloat_CheckExact(at)
            and lend(place_text, &place)
            and (plain or lend(field_text, &field))
            and lend(head, &fields)
        ):
            return self.as_twin(head, at, number, more, place_text, key)
        whole = PyLong_AsLongLongAndOverflow(number, &overflow)
        began_ms = PyFloat_AS_DOUBLE(at) * 1000.0 + self.offset_ms
        ended_ms = PyFloat_AS_DOUBLE(more) * 1000.0 + self.offset_ms
        if (
            overflow
            or not fits(began_ms)
            or not fits(ended_ms)
            or second_of(self.parts, <long long>began_ms, &self.began)
            or second_of(self.parts, <long long>ended_ms, &self.ended)
        ):
            return self.as_twin(head, at, number, more, place_text, key)
        digits = decimal(whole, number_text + DIGITS)
        # Behind the time: ","offset": and all the rest.
        size = 11 + digits + place.size + field.size + self.consumer.size + fields.size + 1
        if plain:
            size += 9
        first = PyBytes_FromStringAndSize(
            NULL, self.dispatched.size + self.began.size + 5 + size
        )
        to = put(PyBytes_AS_STRING(first), self.dispatched.at, self.dispatched.size)
        to = put_time(to, &self.began, <long long>began_ms)
        rest = to
        to = put(to, b'","offset":', 11)
        to = put(to, number_text + DIGITS - digits, digits)
        to = put(to, place.at, place.size)
        if plain:
            to = put(to, b',"key":"', 8)
        to = put(to, field.at, field.size)
        if plain:
            to[0] = c'"'
            to += 1
        to = put(to, self.consumer.at, self.consumer.size)
        to = put(to, fields.at, fields.size)
        to[0] = c"}"
        second = PyBytes_FromStringAndSize(
            NULL, self.succeeded.size + self.ended.size + 5 + size
        )
        to = put(PyBytes_AS_STRING(second), self.succeeded.at, self.succeeded.size)
        to = put_time(to, &self.ended, <long long>ended_ms)
        put(to, rest, size)
        self.keys.append(key_bytes)
        self.keys.append(key_bytes)
        self.lines.append(first)
        self.lines.append(second)
        return 0

    cdef int as_twin(
        self, object head, object at, object number, object more, object place, object key
    ) except -1:
        """The same, as the twin does it."""
        known = self.known_keys.get(key)
        field, key_bytes = self.parts.key(key) if known is None else known
        rest = f'","offset":{number}{place}{field}{self.parts.consumer}{head}}}'
        began = self.parts.time(int(at * 1000.0 + self.offset_ms))
        ended = self.parts.time(int(more * 1000.0 + self.offset_ms))
        self.keys += (key_bytes, key_bytes)
        self.lines.append(f"{self.parts.dispatched}{began}{rest}".encode("utf-8", "replace"))
        self.lines.append(f"{self.parts.succeeded}{ended}{rest}".encode("utf-8", "replace"))
        return 0


def event_lines(object parts, object values, double offset_ms):
    """See ``protocols_events.EventLines``."""
    cdef list entries = values if type(values) is list else list(values)
    cdef Py_ssize_t n, count = PyList_GET_SIZE(entries)
    cdef _Lines lines
    if count % FIELDS:
        raise ValueError(f"event_lines: {count} values are not seven for each entry")
    lines = _Lines(parts, offset_ms)
    last = last_key = last_tp = last_layout = rest = last_ms = None
    key_bytes, time = b"", ""
    for n in range(0, count, FIELDS):
        more = <object>PyList_GET_ITEM(entries, n + 6)
        head = <object>PyList_GET_ITEM(entries, n)
        at = <object>PyList_GET_ITEM(entries, n + 1)
        tp = <object>PyList_GET_ITEM(entries, n + 3)
        number = <object>PyList_GET_ITEM(entries, n + 4)
        key = <object>PyList_GET_ITEM(entries, n + 5)
        if PyFloat_CheckExact(more):
            # An attempt that ended well; in nearly all entries.
            lines.pair(head, at, tp, number, key, more)
            last = None
            continue
        # What else happens to a message comes together as a rule, and holds the same objects.
        layout = <object>PyList_GET_ITEM(entries, n + 2)
        if (
            number is not last
            or key is not last_key
            or tp is not last_tp
            or layout is not last_layout
        ):
            last, last_key, last_tp, last_layout = number, key, tp, layout
            key_bytes, rest = parts.about(layout, tp, number, key)
        if rest is None:
            continue
        ms = int(at * 1000.0 + offset_ms)
        if ms != last_ms:
            last_ms = ms
            time = parts.time(ms)
        lines.keys.append(key_bytes)
        lines.lines.append(f"{head}{time}{rest}{more}}}".encode("utf-8", "replace"))
    return lines.keys, lines.lines
