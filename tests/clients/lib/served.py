"""Prints the keys of the APIs that the broker HOST:PORT serves, by ApiVersions v0. For checks of what is not served everywhere."""

import socket
import struct
import sys

host, port = sys.argv[1].rsplit(":", 1)


def exactly(connection, count):
    found = b""
    while len(found) < count:
        piece = connection.recv(count - len(found))
        assert piece, "the broker closed the connection"
        found += piece
    return found


with socket.create_connection((host, int(port)), 20) as connection:
    # Length; then key 18, version 0, correlation id 1, no client id.
    connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
    (length,) = struct.unpack(">i", exactly(connection, 4))
    answer = exactly(connection, length)
correlation, error, count = struct.unpack_from(">ihi", answer)
assert (correlation, error) == (1, 0), f"ApiVersions was answered with error {error}"
print(*(struct.unpack_from(">h", answer, 10 + 6 * index)[0] for index in range(count)))
