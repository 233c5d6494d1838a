# cython: language_level=3
"""The first step of a coroutine, compiled: the twin of ``first_step_py.py``."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

from prosody._core.constants import ENDED


cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT

    PySendResult PyIter_Send(object coroutine, object value, PyObject** result) except PYGEN_ERROR


cdef object _ENDED = ENDED


def first_step(coroutine):
    """See ``protocols_calls.FirstStep``."""
    cdef PyObject* result = NULL
    cdef PySendResult how = PyIter_Send(coroutine, None, &result)
    waited = <object> result
    Py_DECREF(waited)  # it came with a reference of its own
    return _ENDED if how == PYGEN_RETURN else waited
