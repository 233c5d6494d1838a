# cython: language_level=3
cimport cython
from libc.stdint cimport int64_t


cdef struct Step:
    double debt
    double since
    Py_ssize_t slot


cdef enum:
    LEVELS = 24  # of eight branches each: more slots than there is memory


cdef inline double priority(
    double debt, double since, double decay, double now, double max_wait, double wait_weight
) noexcept nogil:
    """The published formula; ``debt`` is virtual time at the landmark, ``decay`` from there to now."""
    cdef double wait = (now - since) / max_wait
    if wait > 1.0:
        wait = 1.0
    return debt * decay - wait_weight * (wait * wait)


@cython.final
cdef class WaitingLine:
    cdef double _max_wait
    cdef double _wait_weight
    cdef int64_t _appended
    cdef Py_ssize_t live
    cdef Py_ssize_t _capacity
    cdef Py_ssize_t _used            # slots used since the last rebuilding
    cdef list _items                 # by slot; None where there is none
    cdef double* _since              # by slot
    cdef int64_t* _numbers           # by slot
    cdef double* _minima             # level after level, the debts by slot first
    cdef double* _level[LEVELS]      # where each level begins in ``_minima``
    cdef int _top                    # the level that is one node of eight
    cdef Step* _room                 # the steps lie in there, from ``_steps`` on
    cdef Step* _steps
    cdef Py_ssize_t _step_count

    cdef int make_room(self) except -1
    cdef int64_t append(self, object item, double debt, double since) except -1
    cdef object pop_least(self, double decay, double now)
    cdef int withdraw(self, int64_t number) except -1
    cdef int rescale(self, double factor) except -1
    cdef check_valid(self)
    cdef check_holds(self, dict expected)
    cdef Py_ssize_t _least(self, double decay, double now) noexcept
    cdef object _remove(self, Py_ssize_t slot, Py_ssize_t step)
    cdef void _uncover(self, Py_ssize_t slot, Py_ssize_t step) noexcept
    cdef void _set_step(self, Py_ssize_t step, Py_ssize_t slot) noexcept
    cdef void _insert_step(self, Py_ssize_t step, Py_ssize_t slot) noexcept
    cdef void _drop_step(self, Py_ssize_t step) noexcept
    cdef Py_ssize_t _first_below(self, Py_ssize_t slot, double debt) noexcept
    cdef int _rebuild(self, Py_ssize_t capacity) except -1
    cdef int _allot(self, Py_ssize_t capacity) except -1
    cdef void _measure(self) noexcept
