//! The destination against a real server, fed by a source that is nothing but `pg_dump` and COPY.

mod fixture;
mod flip;
mod preflight;
mod seed;
