# Nothing of it can be reached from Python: vtime_heap_c uses it through waiting_line_c.pxd.
