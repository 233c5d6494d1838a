"""Side by side with what a Python program could pick instead, over the same servers."""
