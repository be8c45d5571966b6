"""A page about one run or several: what was trained on what, how good it is, where, and what it costs."""
