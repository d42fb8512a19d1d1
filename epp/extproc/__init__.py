"""Envoy's side: the ext_proc protocol as a machine without I/O, and the servers that drive it."""
