"""Drives a copy or a move from start to end as any gRPC client would, with stubs made from the protocol's own files.

usage: drive.py ADDRESS CA CERT KEY copy|move DATABASE
Prints one line of JSON: the states seen by the watch, the last of them, and what was refused on the way.
"""

import json
import sys

import grpc

from causeway.v1 import coordinator_pb2, coordinator_pb2_grpc, operation_pb2
from google.rpc import error_details_pb2, status_pb2


def channel(address, ca, cert, key):
    read = lambda path: open(path, "rb").read()
    credentials = grpc.ssl_channel_credentials(read(ca), read(key), read(cert))
    return grpc.secure_channel(address, credentials)


def reason(error):
    """The stable reason of a refusal, from the details that travel with it."""
    for key, value in error.trailing_metadata():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return ""


def main(address, ca, cert, key, kind, database):
    stub = coordinator_pb2_grpc.CoordinatorStub(channel(address, ca, cert, key))
    kind = operation_pb2.KIND_COPY if kind == "copy" else operation_pb2.KIND_MOVE
    instances = stub.ListInstances(coordinator_pb2.ListInstancesRequest(), timeout=20).instances
    request = coordinator_pb2.StartOperationRequest(
        kind=kind, source="west", destination="east", databases=[database], request_id=f"from-python-{database[0]}"
    )
    operation = stub.StartOperation(request, timeout=20).operations[0]
    selector = coordinator_pb2.OperationSelector(ids=[operation.id])
    refused = ""
    states = []
    for update in stub.WatchOperations(coordinator_pb2.WatchOperationsRequest(ids=[operation.id]), timeout=60):
        state = operation_pb2.State.Name(update.operation.state)
        if not states or states[-1] != state:
            states.append(state)
        if state == "STATE_READY_FOR_COMPLETION":
            stub.CompleteOperation(coordinator_pb2.CompleteOperationRequest(operations=selector), timeout=20)
    try:
        stub.CancelOperation(coordinator_pb2.CancelOperationRequest(operations=selector), timeout=20)
    except grpc.RpcError as error:
        refused = f"{error.code().name} {reason(error)}"
    listed = stub.ListOperations(coordinator_pb2.ListOperationsRequest(databases=[database]), timeout=20).operations
    print(
        json.dumps(
            {
                "id": operation.id,
                "states": states,
                "refused": refused,
                "instances": [instance.name for instance in instances],
                "listed": [operation.id for operation in listed],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
