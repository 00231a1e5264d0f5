"""The registries that the mirror pulls from.

::

    failover      an upstream: what it is asked, and persistence until a deadline
    rounds        its endpoints in their order, each asked once, as far as they may be asked
    standing      how an endpoint stands, known to all workers: breaker, rests, rate limit
    breaker       whether one that keeps failing is asked; pure
    ratelimit     how much of a rate limit is left; pure
    queue         so many requests at a time, and a fair queue
    hedge         two attempts side by side
    endpoints     the endpoints, as the settings have them
    client        one endpoint: what is asked, and what is made of the answers
    blob          a blob's body on its way
    answers       an answer's fields, as records and errors
    session       asking an endpoint: tokens and redirects
    auth          how an endpoint wants to be asked; does no I/O
    challenges, tokens, credentials, origins
    transport     requests on the wire; foreign errors become ours
    dial          which addresses may be reached
    stream        a connection
    backoff       when to try again
"""
