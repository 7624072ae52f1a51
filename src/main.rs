//! `margay <subcommand>`: arguments and wiring only.
fn main() {}
