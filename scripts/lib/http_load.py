#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR MIT
"""HTTP requests to one address, each on a connection of its own, counted by the server that answered.

A request has failed when anything but a whole `200` answer comes back within the timeout: nothing is retried. With
--upload each request carries a body of that many bytes, and the path MTU that the connection ended with is recorded.

Prints one JSON object: {"requests", "failures", "backends": {name: count}, "mtu": {name: [path MTU, ...]}, "errors",
"slowest_ms"}.
"""
import argparse
import collections
import ipaddress
import json
import socket
import threading
import time

IP_MTU, IPV6_MTU = 14, 24  # linux/in.h, linux/in6.h: the path MTU of a connected socket

GIVE_UP = 50  # failures after which no more requests are made: the answer is known


def request(address, port, source, timeout, upload):
    """One request; returns (name of the server, path MTU). Raises OSError or ValueError when it fails."""
    bind = (source, 0) if source else None
    with socket.create_connection((address, port), timeout=timeout, source_address=bind) as s:
        host = f"[{address}]" if ":" in address else address
        head = f"{'POST' if upload else 'GET'} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
        s.sendall((head + (f"Content-Length: {upload}\r\n\r\n" if upload else "\r\n")).encode() + b"x" * upload)
        if upload:
            s.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := s.recv(4096):
            answer += chunk
        mtu = s.getsockopt(socket.IPPROTO_IPV6, IPV6_MTU) if ":" in address else s.getsockopt(socket.IPPROTO_IP, IP_MTU)
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1.1 200 "):
        raise ValueError(f"not a 200 answer: {answer[:60]!r}")
    return body.decode().strip(), mtu


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="IPv4 or IPv6 address")
    parser.add_argument("--port", type=int, default=80)
    parser.add_argument("--count", type=int, help="requests in all")
    parser.add_argument("--seconds", type=float, help="keep on for so long")
    parser.add_argument("--workers", type=int, default=4, help="connections at a time")
    parser.add_argument("--source", help="local address")
    parser.add_argument("--timeout", type=float, default=2.0, help="seconds without progress until a request has failed")
    parser.add_argument("--upload", type=int, default=0, metavar="BYTES", help="POST so much with each request")
    args = parser.parse_args()
    ipaddress.ip_address(args.address)
    if (args.count is None) == (args.seconds is None):
        parser.error("one of --count and --seconds")

    lock = threading.Lock()
    deadline = time.monotonic() + args.seconds if args.seconds is not None else None
    result = {"requests": 0, "failures": 0}
    backends, errors, mtus = collections.Counter(), collections.Counter(), collections.defaultdict(list)
    slowest = 0.0

    def worker():
        nonlocal slowest
        while True:
            with lock:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                if args.count is not None and result["requests"] >= args.count:
                    return
                if result["failures"] >= GIVE_UP:
                    return
                result["requests"] += 1
            begin, failure = time.monotonic(), None
            try:
                name, mtu = request(args.address, args.port, args.source, args.timeout, args.upload)
            except (OSError, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
            with lock:
                slowest = max(slowest, time.monotonic() - begin)
                if failure is None:
                    backends[name] += 1
                    if args.upload:
                        mtus[name].append(mtu)
                else:
                    result["failures"] += 1
                    errors[failure] += 1

    threads = [threading.Thread(target=worker) for _ in range(args.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result.update(backends=dict(sorted(backends.items())), mtu=mtus, errors=errors, slowest_ms=round(slowest * 1000))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
