"""``wasm-mirror doctor``: reaches all that a mirror needs, says what would fail, and what to do about it.

::

    report       findings, as a table or JSON
    visit        all subjects at once, each bounded in time
    reach        addresses, connections and certificates of a host
    upstreams    the registries, endpoint by endpoint
    shared       Redis
    cluster      this replica as others see it, and the others
    disk         the data directory
    machine      limits of this process, and where it listens
    subjects     the settings to all that is examined
"""
