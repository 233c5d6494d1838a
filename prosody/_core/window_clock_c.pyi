# Nothing of it can be used from Python: the windows use it through window_clock_c.pxd.
