# cython: language_level=3, auto_pickle=False, cdivision=True
"""The virtual-time heap, compiled: the twin of ``vtime_heap_py.py``, to the bit."""

cimport cython
from cpython.float cimport PyFloat_CheckExact
from libc.math cimport INFINITY, exp, isfinite

from prosody._core.idle_keys_c cimport DISPATCHED, IDLE, WAITING, IdleKeys, KeyState
from prosody._core.waiting_line_c cimport WaitingLine, priority

from prosody._core import constants
from prosody._core.vtime_parameters import as_float, checked_parameters

cdef double LN2 = constants.LN2
cdef double LONGEST_RUN_S = constants.LONGEST_RUN_S
cdef double REBASE_HALF_LIVES = constants.REBASE_HALF_LIVES
cdef int ESTIMATE_RUNS = constants.ESTIMATE_RUNS


# What a work class has used, see ``class_account_py.py``.
cdef struct Account:
    double weight
    double settled
    double estimated
    double mean_run
    Py_ssize_t dispatched
    int runs


# Not cleared by the garbage collector, but its dict and lists are: see ``WaitingLine``.
@cython.final
@cython.no_gc_clear
cdef class VirtualTimeHeap:
    """Who runs next; see ``protocols_qos.VirtualTimeHeap`` for the formula.

    The states of a key, and what a debt is, stand in ``vtime_heap_py.py``. State is made in
    ``__cinit__``, so that there is no half-made heap to be had.
    """

    cdef object __weakref__
    cdef dict _keys
    cdef IdleKeys _idle
    cdef WaitingLine _normal
    cdef WaitingLine _failure
    cdef Account _accounts[2]
    cdef Py_ssize_t _cache_size
    cdef double _max_wait
    cdef double _wait_weight
    cdef double _half_life
    cdef double _landmark
    cdef double _latest

    def __cinit__(self, *arguments, **named):
        given = checked_parameters(*arguments, **named)
        self._accounts[0].weight = given.normal_weight
        self._accounts[1].weight = given.failure_weight
        self._max_wait = given.max_wait
        self._wait_weight = given.wait_weight
        self._cache_size = given.cache_size
        self._half_life = given.half_life
        self._normal = WaitingLine(self._max_wait, self._wait_weight)
        self._failure = WaitingLine(self._max_wait, self._wait_weight)
        self._idle = IdleKeys()
        self._keys = {}
        self._landmark = -INFINITY
        self._latest = -INFINITY

    def __reduce__(self):
        raise TypeError("a VirtualTimeHeap is live state: it can be neither copied nor pickled")

    def __repr__(self):
        return (
            f"VirtualTimeHeap(waiting={self.waiting}, dispatched={self.dispatched}, "
            f"remembered={self.remembered})"
        )

    @property
    def waiting(self):
        """Entries pushed and not yet popped or withdrawn."""
        return self._normal.live + self._failure.live

    @property
    def dispatched(self):
        """Entries popped and not yet completed or given back."""
        return self._accounts[0].dispatched + self._accounts[1].dispatched

    @property
    def remembered(self):
        """Keys kept: those waiting or dispatched, and at most ``cache_size`` besides."""
        return len(self._keys)

    def push(self, key, entry, work_class, now):
        """Let ``entry`` wait.

        :raises ValueError: ``key`` has an entry already, ``entry`` is None, ``work_class`` is neither 0
            nor 1, or ``now`` is not finite.
        """
        cdef KeyState state
        cdef WaitingLine line
        cdef double time
        cdef int number
        if entry is None:
            raise ValueError("push: entry must not be None, which pop answers for 'nothing waits'")
        time = _seconds("push: now", now)
        number = _class_number("push", work_class)
        line = self._failure if number else self._normal
        found = self._keys.get(key)
        if found is not None:
            state = <KeyState>found
            if state.status != IDLE:
                status = "waiting" if state.status == WAITING else "dispatched"
                raise ValueError(f"push: key {key!r} has an entry already, which is {status}")
            line.make_room()
            self._idle.remove(state)
        else:
            line.make_room()
            state = KeyState.__new__(KeyState)
            state.key = key
            state.rested = -1
            self._keys[key] = state
        time = self._advance(time)
        state.status = WAITING
        state.entry = entry
        state.since = time
        state.work_class = number
        state.number = line.append(state, state.debt, time)

    def pop(self, now):
        """Dispatch the entry that is next; None when nothing waits. Charges its class an estimate.

        :raises ValueError: ``now`` is not finite.
        """
        cdef KeyState state
        cdef WaitingLine line
        cdef Account* account
        cdef double time = self._advance(_seconds("pop: now", now))
        cdef double decay = self._decay(time)
        if not self._failure.live:
            if not self._normal.live:
                return None
            line, account = self._normal, &self._accounts[0]
        elif not self._normal.live or (
            _score(&self._accounts[1], decay) < _score(&self._accounts[0], decay)
        ):
            line, account = self._failure, &self._accounts[1]
        else:
            line, account = self._normal, &self._accounts[0]
        state = <KeyState>line.pop_least(decay, time)
        entry = state.entry
        state.entry = None
        state.status = DISPATCHED
        state.charge = account.mean_run * self._growth(time)
        account.estimated += state.charge
        account.dispatched += 1
        return entry

    def complete(self, key, used, now):
        """The dispatched entry of ``key`` ran for ``used`` seconds: charge key and class, now.

        A run of more than 31 years counts as one of 31 years.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``used`` is negative or not finite, or ``now`` is not finite.
        """
        cdef KeyState state
        cdef Account* account
        cdef double charge
        cdef double time = _seconds("complete: now", now)
        cdef double run = _seconds("complete: used", used)
        if run < 0.0:
            raise ValueError(f"complete: used must not be negative, not {run!r}")
        found = self._keys.get(key)
        if found is None or (<KeyState>found).status != DISPATCHED:
            raise KeyError(f"complete: nothing of key {key!r} is dispatched")
        state = <KeyState>found
        time = self._advance(time)
        if run > LONGEST_RUN_S:
            run = LONGEST_RUN_S
        charge = run * self._growth(time)
        account = &self._accounts[state.work_class]
        _give_back(account, state.charge)
        account.settled += charge
        if account.runs < ESTIMATE_RUNS:
            account.runs += 1
        account.mean_run += (run - account.mean_run) / account.runs
        state.debt += charge
        self._rest(state)

    def give_back(self, key, now):
        """The dispatched entry of ``key`` never ran: the class gets its estimate back.

        :raises KeyError: nothing of ``key`` is dispatched.
        :raises ValueError: ``now`` is not finite.
        """
        cdef KeyState state
        cdef double time = _seconds("give_back: now", now)
        found = self._keys.get(key)
        if found is None or (<KeyState>found).status != DISPATCHED:
            raise KeyError(f"give_back: nothing of key {key!r} is dispatched")
        state = <KeyState>found
        self._advance(time)
        _give_back(&self._accounts[state.work_class], state.charge)
        self._rest(state)

    def withdraw(self, key):
        """Take back the waiting entry of ``key`` (cancelled, revoked) and return it.

        :raises KeyError: nothing of ``key`` waits.
        """
        cdef KeyState state
        found = self._keys.get(key)
        if found is None or (<KeyState>found).status != WAITING:
            raise KeyError(f"withdraw: nothing of key {key!r} waits")
        state = <KeyState>found
        (self._failure if state.work_class else self._normal).withdraw(state.number)
        entry = state.entry
        state.entry = None
        self._rest(state)
        return entry

    def virtual_time(self, key, now):
        """Seconds charged to ``key``, decayed to ``now``; 0.0 for a key not remembered.

        :raises ValueError: ``now`` is not finite.
        """
        cdef double time = self._clamped(_seconds("virtual_time: now", now))
        found = self._keys.get(key)
        return 0.0 if found is None else (<KeyState>found).debt * self._decay(time)

    def virtual_times(self, now):
        """The ``virtual_time`` of each key that is remembered."""
        cdef double decay = self._decay(self._clamped(_seconds("virtual_times: now", now)))
        times = {}
        for key, found in self._keys.items():
            times[key] = (<KeyState>found).debt * decay
        return times

    def waiting_since(self):
        """The keys with an entry that waits, and when it was pushed."""
        times = {}
        for key, found in self._keys.items():
            if (<KeyState>found).status == WAITING:
                times[key] = (<KeyState>found).since
        return times

    def class_time(self, work_class, now):
        """Seconds charged to a class, decayed to ``now``, estimates of dispatched entries included.

        :raises ValueError: ``work_class`` is neither 0 nor 1, or ``now`` is not finite.
        """
        cdef double time = self._clamped(_seconds("class_time: now", now))
        cdef Account* account = &self._accounts[_class_number("class_time", work_class)]
        return (account.settled + account.estimated) * self._decay(time)

    def priority(self, key, now):
        """The published priority of the waiting entry of ``key``.

        :raises KeyError: nothing of ``key`` waits.
        :raises ValueError: ``now`` is not finite.
        """
        cdef KeyState state
        cdef double time = self._clamped(_seconds("priority: now", now))
        found = self._keys.get(key)
        if found is None or (<KeyState>found).status != WAITING:
            raise KeyError(f"priority: nothing of key {key!r} waits")
        state = <KeyState>found
        return priority(
            state.debt, state.since, self._decay(time), time, self._max_wait, self._wait_weight
        )

    def check_valid(self):
        """Assert the invariants; for tests.

        :raises AssertionError: when one does not hold.
        """
        cdef KeyState state
        cdef Account* account
        cdef int number
        idle = []
        waiting = {}, {}
        dispatched = [0, 0]
        for key, found in self._keys.items():
            state = <KeyState>found
            _require(state.key is key, "a key is filed under another")
            _require((state.entry is not None) == (state.status == WAITING), "an entry misplaced")
            _require((state.rested >= 0) == (state.status == IDLE), "an idle key is not at rest")
            _require(0.0 <= state.debt < INFINITY, "a debt out of range")
            _require(state.since <= self._latest, "an entry from the future")
            if state.status == IDLE:
                idle.append(state)
            elif state.status == WAITING:
                waiting[state.work_class][state.number] = state, state.debt
            else:
                dispatched[state.work_class] += 1
        _require(len(idle) <= self._cache_size, "too many keys remembered")
        self._idle.check_valid(idle)
        for number, line in enumerate((self._normal, self._failure)):
            (<WaitingLine>line).check_valid()
            (<WaitingLine>line).check_holds(waiting[number])
            account = &self._accounts[number]
            _require(dispatched[number] == account.dispatched, "dispatched does not add up")
            _require(account.dispatched or account.estimated == 0.0, "an estimate left over")
            _require(0.0 <= account.estimated < INFINITY, "an estimate out of range")
            _require(0.0 <= account.settled < INFINITY, "a class time out of range")
            _require(0 <= account.runs <= ESTIMATE_RUNS, "runs out of range")
        old = self._latest > -INFINITY and self._half_lives(self._latest) > REBASE_HALF_LIVES
        _require(not old, "the landmark is too old")

    cdef inline double _clamped(self, double now) noexcept:
        return self._latest if now < self._latest else now

    cdef inline double _advance(self, double now) except? -1.0:
        """``now``, or the latest one seen when that is later."""
        if now <= self._latest:
            return self._latest
        self._latest = now
        # The first time of all comes here as well, the landmark being infinitely old.
        if self._half_lives(now) > REBASE_HALF_LIVES:
            self._rebase(now)
        return now

    cdef inline double _half_lives(self, double now) noexcept:
        """From the landmark to ``now``."""
        if self._half_life == INFINITY:
            return 0.0
        return (now - self._landmark) / self._half_life

    cdef inline double _decay(self, double now) noexcept:
        return exp(-LN2 * self._half_lives(now))

    cdef inline double _growth(self, double now) noexcept:
        return exp(LN2 * self._half_lives(now))

    cdef int _rebase(self, double now) except -1:
        """Move the landmark to ``now``."""
        cdef double factor = self._decay(now)
        cdef int number
        for found in self._keys.values():
            (<KeyState>found).debt *= factor
            (<KeyState>found).charge *= factor
        self._idle.rescaled()
        self._normal.rescale(factor)
        self._failure.rescale(factor)
        for number in range(2):
            self._accounts[number].settled *= factor
            self._accounts[number].estimated *= factor
        self._landmark = now
        return 0

    cdef int _rest(self, KeyState state) except -1:
        """The key has nothing waiting or running any more: remember its debt, if there is room."""
        cdef KeyState least
        state.status = IDLE
        if state.debt == 0.0:
            self._forget(state)
        elif self._idle.count < self._cache_size:
            self._idle.add(state)
        else:
            # Why the least debt: see ``IdleKeys.add`` of the twin.
            least = self._idle.least()
            if least.debt > state.debt:
                self._forget(state)
            else:
                self._idle.remove(least)
                self._idle.add(state)
                self._forget(least)
        return 0

    cdef int _forget(self, KeyState state) except -1:
        del self._keys[state.key]
        return 0


cdef inline void _give_back(Account* account, double charge) noexcept:
    cdef double left = account.estimated - charge
    account.dispatched -= 1
    account.estimated = left if account.dispatched and left > 0.0 else 0.0


cdef inline double _score(Account* account, double decay) noexcept:
    if account.weight == 0.0:
        return INFINITY
    return (account.settled + account.estimated) * decay / account.weight


cdef inline double _seconds(str what, object value) except? -1.0:
    cdef double seconds
    if PyFloat_CheckExact(value):
        seconds = value
    elif type(value) is int:
        seconds = as_float(value)
    else:
        raise TypeError(f"{what} must be a float, not {type(value).__name__}")
    if not isfinite(seconds):
        raise ValueError(f"{what} must be finite, not {seconds!r}")
    return seconds


cdef inline int _class_number(str method, object work_class) except -1:
    if work_class == 0:
        return 0
    if work_class == 1:
        return 1
    raise ValueError(f"{method}: work_class must be 0 (normal) or 1 (failure), not {work_class!r}")


def _require(holds, message):
    if not holds:
        raise AssertionError(f"VirtualTimeHeap: {message}")
