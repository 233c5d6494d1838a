# cython: language_level=3, auto_pickle=False
"""Admission of plain records, compiled: the twin of ``admission_py.py``."""

cimport cython
from cpython.object cimport PyObject

from prosody._core.fetched_record_c cimport FetchedRecord
from prosody._core.maker_c cimport Maker


@cython.final
cdef class Admission:
    """Takes records of one partition to its key queue; see ``protocols_calls.Admission``."""

    cdef object _partition
    cdef object _number
    cdef object _track
    cdef object _done
    cdef object _push
    cdef object _ready
    cdef object _decode
    cdef Maker _message
    cdef Maker _run
    cdef tuple _mark
    cdef object _allows
    cdef object _identify

    def __init__(
        self, partition, *, track, done, push, ready, decode, message, run, mark, allows, identify
    ):
        self._partition = partition
        self._number = partition.number
        self._track = track
        self._done = done
        self._push = push
        self._ready = ready
        self._decode = decode
        # What the compiled ``maker`` answers is a method of what copies.
        self._message = message.__self__
        self._run = run.__self__
        self._mark = mark
        self._allows = allows
        self._identify = identify

    def admit(self, records, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t room, before, double now):
        """See ``protocols_calls.Admission``."""
        cdef object topic, partition, offset, timestamp, raw_key, value, headers
        cdef object key, payload, message, run, place
        cdef PyObject* fields[6]
        cdef object received = now
        while at < stop and room > 0:
            record = records[at]
            if type(record) is FetchedRecord:
                offset = (<FetchedRecord> record).offset
                timestamp = (<FetchedRecord> record).timestamp
                raw_key = (<FetchedRecord> record).key
                value = (<FetchedRecord> record).value
                headers = (<FetchedRecord> record).headers
                topic = (<FetchedRecord> record).topic
                partition = (<FetchedRecord> record).partition
            else:
                offset, timestamp = record.offset, record.timestamp
                raw_key, value, headers = record.key, record.value, record.headers
                topic, partition = record.topic, record.partition
            if value is None or offset <= before or timestamp < 0 or (headers and self._mark in headers):
                break
            try:
                key = (<bytes?> raw_key).decode() if raw_key else ""
                payload = self._decode(value)
            except Exception:
                break  # the caller reads it once more, and says what is wrong with it
            at += 1
            before = offset
            self._track(offset, received)
            if self._allows is not None and not self._allows(payload):
                self._done(offset)
                continue
            fields[0], fields[1], fields[2] = <PyObject*> topic, <PyObject*> partition, <PyObject*> offset
            fields[3], fields[4], fields[5] = <PyObject*> timestamp, <PyObject*> key, <PyObject*> payload
            message = self._message.copy(fields)
            place = (self._number, key)
            fields[0], fields[1], fields[2] = <PyObject*> self._partition, <PyObject*> record, <PyObject*> key
            fields[3], fields[4] = <PyObject*> message, <PyObject*> place
            run = self._run.copy(fields)
            if self._identify is not None and type(payload) is dict and "id" in <dict> payload:
                self._identify(run)
            if self._push(key, run):
                self._ready(received)
            room -= 1
        return at, room
