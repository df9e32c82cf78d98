"""A small upstream with real formats, for `make demo` and for tests: no internet, no Django."""
