"""The door: requests by HTTP (OpenDSR 2.0), tokens with scopes, signed callbacks, and hooks of the operator.

    tokens      who may do what          opendsr     the protocol: what comes in, what goes out, no effect
    signing     answers are signed       requests    the routes
    addresses   where callbacks may go   outbox      what is still to be told, and to whom
    courier     tells it                 asgi        all of it as one application

It writes to the ledger as `lmeraser submit` does, and to a database of its own, `.lmeraser/door.db`: tokens by their HMAC, whose
request an id is, and what is still to be told. No name of a person enters that.
"""
