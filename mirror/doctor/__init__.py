"""``wasm-mirror doctor``: reaches all that a mirror needs, says what would fail, and what to do about it.

::

    report       findings, as a table or JSON
    visit        all subjects at once, each bounded in time
    heard        what the mirror's own code writes to its log meanwhile
    reach        addresses, connections and certificates of a host
    asking       one request to an endpoint, step by step
    remedies     what to do when it does not answer as a registry does
    upstreams    the registries, endpoint by endpoint
    info         what a Redis says of itself, judged
    refused      what a Redis refuses, and what to do about it
    shared       the Redis that replicas share
    probes       what a file system has to do, tried
    disk         the data directory
    cluster      this replica as others see it, and the others
    machine      limits of this process, and where it listens
    subjects     the settings to all that is examined
"""
