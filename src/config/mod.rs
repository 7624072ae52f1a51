//! A directory of YAML resources: read, watched, validated as a whole.
