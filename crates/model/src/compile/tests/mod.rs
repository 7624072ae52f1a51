//! What compile promises, rule by rule.

mod build;
mod differences;
mod filter;
mod ids;
mod invariants;
mod limits;
mod origins;
mod ports;
mod routes;
mod services;
mod vrfs;
