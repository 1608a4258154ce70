"""The door: requests by HTTP (OpenDSR 2.0), tokens with scopes, signed callbacks, and hooks of the operator.

    tokens      who may do what          opendsr     the protocol: what comes in, what goes out, no effect
    signing     answers are signed       bodies      what comes in is read strictly; the bodies of our own routes
    addresses   where callbacks may go   requests    OpenDSR's requests: they come in, and are told
    outbox      what is still to be      kinds       single images, corrections, questions
                told, and to whom        deciding    what is proposed, held, extended
    courier     tells it                 routes      all routes with their scopes; asgi: all of it as one application

It writes to the ledger as the commands do, and to a database of its own, `.lmeraser/door.db`: tokens by their HMAC, whose
request an id is, and what is still to be told. No name of a person enters that.
"""
