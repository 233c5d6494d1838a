# Nothing of it can be reached from Python: vtime_heap_c uses it through idle_keys_c.pxd.
