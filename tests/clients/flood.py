"""A client that behaves as badly as it can: floods with requests, opens watches that it never reads, and connects without
a word.

usage: flood.py ADDRESS CA CERT KEY OPERATION SECONDS
Prints "flooding" once it does, then one line of JSON: how many requests got through, how many were refused as too many,
and what else was answered.
"""

import collections
import json
import socket
import sys
import threading
import time

import grpc

from causeway.v1 import coordinator_pb2, coordinator_pb2_grpc

THREADS = 8
WATCHES = 400
SILENT = 100


def channel(address, ca, cert, key):
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    # A pool of its own: connections of equal channels are shared otherwise.
    return grpc.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])


def main(address, ca, cert, key, operation, seconds):
    answers = collections.Counter()
    until = time.monotonic() + float(seconds)
    channels = [channel(address, ca, cert, key) for _ in range(THREADS)]
    stubs = [coordinator_pb2_grpc.CoordinatorStub(one) for one in channels]

    def flood(stub):
        while time.monotonic() < until:
            # Many under way at once, as fast as this machine can.
            calls = [stub.ListOperations.future(coordinator_pb2.ListOperationsRequest(), timeout=20) for _ in range(50)]
            for call in calls:
                answers[call.code().name] += 1

    watches = [
        stub.WatchOperations(coordinator_pb2.WatchOperationsRequest(ids=[operation]))
        for stub in stubs
        for _ in range(WATCHES // THREADS)
    ]
    host, port = address.rsplit(":", 1)
    silent = [socket.create_connection((host, int(port))) for _ in range(SILENT)]
    threads = [threading.Thread(target=flood, args=(stub,)) for stub in stubs]
    for thread in threads:
        thread.start()
    print("flooding", flush=True)
    for thread in threads:
        thread.join()
    refused = sum(1 for watch in watches if watch.done() and watch.code() == grpc.StatusCode.RESOURCE_EXHAUSTED)
    open_watches = sum(1 for watch in watches if not watch.done())
    for one in channels:
        one.close()
    for one in silent:
        one.close()
    print(json.dumps({"answers": answers, "watches_open": open_watches, "watches_refused": refused}))


if __name__ == "__main__":
    main(*sys.argv[1:])
