"""The registries that the mirror pulls from.

::

    failover      an upstream: its endpoints in their order, and persistence until a deadline
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
