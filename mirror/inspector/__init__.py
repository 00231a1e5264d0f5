"""``wasm-mirror inspect``: what a module is, and who would take it; from a mirror, a file, or an OCI layout directory.

::

    told         a description as its JSON tells it, whoever wrote that
    layout       an artifact in an OCI layout directory
    local        what a reference names on this machine, described without a mirror
    remote       what a running mirror says
    report       what was found, as a table or JSON
    command      one reference after the other
"""
