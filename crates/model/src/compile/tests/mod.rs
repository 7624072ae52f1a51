//! What compile promises, rule by rule.

mod build;
mod routes;
