from cpython.object cimport PyObject


cdef class Maker:
    cdef type _made
    cdef tuple _kept
    """Values that are the example's in every copy."""
    cdef Py_ssize_t* _offsets
    """Where those go, then where the given ones go."""
    cdef Py_ssize_t _own
    cdef Py_ssize_t _given

    cdef object copy(self, PyObject** values)
