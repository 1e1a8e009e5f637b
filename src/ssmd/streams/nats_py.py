"""nats-py, imported in one place: without aiohttp, which it knows for servers behind a WebSocket.

ssmd asks its servers over TCP (`streams.server_urls`); aiohttp is installed for S3 and took a third of the start of every
process. All that ssmd uses of nats-py is imported from here, types too.
"""

from ssmd.optional_modules import without

with without("aiohttp"):
    import nats.errors
    from nats import micro
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription
    from nats.micro.request import Request as Asked
    from nats.protocol.parser import Parser

__all__ = ["Asked", "Client", "Msg", "Parser", "Subscription", "micro", "nats"]
