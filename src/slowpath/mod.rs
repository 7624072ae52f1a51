//! AF_XDP workers, one pinned thread a queue.
