"""The mirror as a process of its own, between real sockets."""
