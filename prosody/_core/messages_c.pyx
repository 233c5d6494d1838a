# cython: language_level=3, auto_pickle=False
"""What every message needs, compiled: the twin of ``messages_py.py``."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject

from types import MemberDescriptorType

from prosody._core.constants import ENDED
from prosody._core.fetched_c cimport FetchedRecord


cdef extern from "Python.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset

    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member

    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    object PyType_GenericAlloc(PyTypeObject* made, Py_ssize_t items)
    PySendResult PyIter_Send(object coroutine, object value, PyObject** result) except PYGEN_ERROR
    PyObject** PySequence_Fast_ITEMS(PyObject* values)
    void Py_INCREF(PyObject* value)
    void Py_DECREF(PyObject* value)


cdef extern from "structmember.h":
    int T_OBJECT_EX


cdef bint _is_slot(object slot):
    """Whether a member is a slot; classes written in C have others."""
    return (<PyMemberDescrObject*> <PyObject*> slot).d_member.type == T_OBJECT_EX


cdef inline void _fill(
    PyObject* made, const Py_ssize_t* offsets, PyObject** values, Py_ssize_t count
) noexcept:
    """Put values into slots that are empty."""
    cdef Py_ssize_t at
    for at in range(count):
        Py_INCREF(values[at])
        (<PyObject**> (<char*> made + offsets[at]))[0] = values[at]


@cython.final
cdef class _Maker:
    """Copies of an example, with other values in some of its slots."""

    cdef type _made
    cdef tuple _kept
    """Values that are the example's in every copy."""
    cdef Py_ssize_t* _offsets
    """Where those go, then where the given ones go."""
    cdef Py_ssize_t _own
    cdef Py_ssize_t _given

    def __cinit__(self, example, names):
        cdef type made = type(example)
        slots = {
            name: slot
            for base in made.__mro__
            for name, slot in vars(base).items()
            if type(slot) is MemberDescriptorType and _is_slot(slot)
        }
        if made.__dictoffset__ or not slots.keys() >= set(names):
            raise TypeError(f"a maker of {made.__name__} needs slots alone, and {names} among them")
        kept = [name for name in slots if name not in names and hasattr(example, name)]
        self._made = made
        self._kept = tuple([getattr(example, name) for name in kept])
        self._own, self._given = len(kept), len(names)
        self._offsets = <Py_ssize_t*> PyMem_Malloc((len(kept) + len(names)) * sizeof(Py_ssize_t))
        if self._offsets == NULL:
            raise MemoryError
        for at, name in enumerate([*kept, *names]):
            slot = slots[name]
            self._offsets[at] = (<PyMemberDescrObject*> <PyObject*> slot).d_member.offset

    def __dealloc__(self):
        PyMem_Free(self._offsets)

    def make(self, *values):
        """A copy with these values."""
        if len(values) != self._given:
            raise TypeError(f"{self._made.__name__} is made of {self._given} values, not {len(values)}")
        return self.copy(PySequence_Fast_ITEMS(<PyObject*> values))

    cdef object copy(self, PyObject** values):
        """A copy with as many values as were named."""
        cdef object made = PyType_GenericAlloc(<PyTypeObject*> self._made, 0)
        cdef PyObject* slots = <PyObject*> made
        _fill(slots, self._offsets, PySequence_Fast_ITEMS(<PyObject*> self._kept), self._own)
        _fill(slots, self._offsets + self._own, values, self._given)
        return made


def maker(example, names, plain):
    """See ``protocols_messages.MakerOf``."""
    return _Maker(example, tuple(names)).make


@cython.final
cdef class Admission:
    """Takes records of one partition to its key queue; see ``protocols_messages.Admission``."""

    cdef object _partition
    cdef object _number
    cdef object _track
    cdef object _done
    cdef object _push
    cdef object _ready
    cdef object _decode
    cdef _Maker _message
    cdef _Maker _run
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
        """See ``protocols_messages.Admission``."""
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


cdef object _ENDED = ENDED


def first_step(coroutine):
    """See ``protocols_messages.FirstStep``."""
    cdef PyObject* result = NULL
    cdef PySendResult how = PyIter_Send(coroutine, None, &result)
    waited = <object> result
    Py_DECREF(result)  # it came with a reference of its own
    return _ENDED if how == PYGEN_RETURN else waited
