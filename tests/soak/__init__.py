"""Members and servers that are killed, frozen and replaced by chance, under load, for as long as wanted.

``python -m tests.soak --help`` says how. An episode is planned from its seed: what happens, and when. How
the machine lets its processes take turns is not, so that a seed makes a fault likely again, not certain.
"""
