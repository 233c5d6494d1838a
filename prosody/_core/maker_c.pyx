# cython: language_level=3, auto_pickle=False
"""Objects with slots, made without their ``__init__``, compiled: the twin of ``maker_py.py``."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject, PyTypeObject

from types import MemberDescriptorType


cdef extern from "Python.h":
    ctypedef struct PyMemberDef:
        int type
        Py_ssize_t offset

    ctypedef struct PyMemberDescrObject:
        PyMemberDef* d_member

    object PyType_GenericAlloc(PyTypeObject* made, Py_ssize_t items)
    PyObject** PySequence_Fast_ITEMS(PyObject* values)
    void Py_INCREF(PyObject* value)


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
cdef class Maker:
    """Copies of an example, with other values in some of its slots."""

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
    """See ``protocols_calls.MakerOf``."""
    return Maker(example, tuple(names)).make
