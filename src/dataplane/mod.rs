//! Load, tables, encode, reconcile, counters: the only place that speaks to the kernel about BPF.
