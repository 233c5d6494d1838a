"""The values that travel through the library and what a handler sees of them."""
